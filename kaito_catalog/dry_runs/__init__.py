"""Dry runs on other machines: what to run (`campaign`), and Ray or Kubernetes to run it."""
