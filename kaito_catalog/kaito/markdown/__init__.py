"""KAITO's Markdown proposals, read and written."""
