"""What occupies a GPU under vLLM: pure functions of a shape, all in bytes."""
