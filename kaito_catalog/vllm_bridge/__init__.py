"""vLLM asked without importing it: the worker, its client, what a version knows."""
