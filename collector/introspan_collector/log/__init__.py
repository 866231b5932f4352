"""Accepted records in, the same records in order out, from a cursor and after any crash."""
