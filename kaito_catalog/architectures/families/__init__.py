"""What reads each architecture's configuration into a shape."""
