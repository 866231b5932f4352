"""Introspan's SDK: rides in a vLLM server and measures what the model does internally while it serves."""

__all__ = ["__version__"]

__version__ = "0.1.0"
