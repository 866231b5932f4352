"""Answers to the same questions asked again and again in; how far the model has moved, and from which layer on, out."""
