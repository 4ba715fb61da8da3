"""Speculative decoding: who guesses tokens ahead, and what that holds of a GPU."""
