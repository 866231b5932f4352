"""What `python -m bench.gpu --smoke` looks at, a file for each: checks by name in, how each came out, out."""
