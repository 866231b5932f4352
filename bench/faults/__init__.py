"""Faults injected from outside the product in, what its detection caught out."""
