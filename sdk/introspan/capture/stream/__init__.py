"""Rows of residual streams in, residual signals out."""
