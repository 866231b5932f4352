"""Releases of vLLM in, what each has of what Introspan relies on out: `make compat`."""
