"""What vLLM measures and a plan can only calibrate: activation peak, CUDA graphs, non-torch memory."""
