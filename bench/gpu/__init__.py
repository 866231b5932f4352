"""What Introspan costs and whether its numbers are right on an NVIDIA GPU: `python -m bench.gpu`."""
