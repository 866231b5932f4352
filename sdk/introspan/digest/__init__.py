"""Rows in, token by token; one observation per segment of a request out."""
