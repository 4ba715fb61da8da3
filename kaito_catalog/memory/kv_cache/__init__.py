"""The KV cache as vLLM's planner lays it out: pages, groups, what one request needs, the longest context."""
