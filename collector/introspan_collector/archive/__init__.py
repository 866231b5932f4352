"""Batches in, Parquet by hour and one-minute rollups out; and observations back."""
