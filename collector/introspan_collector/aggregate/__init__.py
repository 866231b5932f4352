"""Batches in, bounded statistics and histograms out."""
