"""Snapshots of aggregates, archive and collector in, /metrics and JSON out."""
