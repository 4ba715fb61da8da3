"""Dry runs in a Kubernetes cluster."""
