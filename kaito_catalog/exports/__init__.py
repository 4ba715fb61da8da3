"""A pinned model in forms that other tools read: each is made whole, or left out with its reason."""
