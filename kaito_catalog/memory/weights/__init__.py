"""Bytes of the parameters on each GPU, from the shape alone, as vLLM's own modules allocate them."""
