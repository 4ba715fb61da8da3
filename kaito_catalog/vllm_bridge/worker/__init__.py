"""The worker that asks vLLM; it runs in another environment, and `vllm_bridge/archive` packs it into one file."""
