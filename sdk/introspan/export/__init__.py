"""Observations in, acknowledged batches out; what cannot be sent is dropped and counted."""

from introspan.export.exporter import Exporter

__all__ = ["Exporter"]
