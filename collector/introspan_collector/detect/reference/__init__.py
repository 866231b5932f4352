"""Healthy requests in; what they look like, and where others lie among them, out."""
