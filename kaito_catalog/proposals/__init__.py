"""Proposals written and corrected by the program."""
