"""Requests of live traffic in, evidence out: one detector a file."""
