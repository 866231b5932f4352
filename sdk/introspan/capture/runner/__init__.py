"""vLLM's model runners in, calls to a recorder out."""
