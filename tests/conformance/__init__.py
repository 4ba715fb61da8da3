"""Comparisons with KAITO's own tree and published configurations: `make conformance KAITO=DIR [CONFIGS=DIR]`."""
