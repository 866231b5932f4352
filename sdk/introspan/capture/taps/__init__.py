"""Tensors of a running forward in, rows of them in buffers out."""
