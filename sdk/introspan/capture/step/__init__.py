"""The order of everything in a step, and what waits between steps."""
