"""A small real model served by vLLM with Introspan in it: `make demo`."""
