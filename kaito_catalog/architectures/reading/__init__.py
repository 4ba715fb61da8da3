"""What readers of configurations share."""
