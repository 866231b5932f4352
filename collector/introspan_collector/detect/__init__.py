"""Observations and canaries in; evidence, alarms and incidents out."""
