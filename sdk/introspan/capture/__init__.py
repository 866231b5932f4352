"""Tensors of the running model in, rows of values on the host out. The only stage that knows torch or vLLM."""
