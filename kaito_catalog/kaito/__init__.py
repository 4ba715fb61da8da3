"""What KAITO takes: its catalog file, its docs table, its manifests."""
