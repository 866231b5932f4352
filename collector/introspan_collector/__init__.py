"""Introspan's collector: accepts observations, keeps them, aggregates them and exposes what they say."""
