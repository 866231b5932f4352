"""Findings in; incidents, and what is probably the matter, out."""
