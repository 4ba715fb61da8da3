"""The Hugging Face Hub and what stands in for it; repositories as facts."""
