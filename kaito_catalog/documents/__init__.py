"""YAML text to values that know their place, values to text, and to typed models."""
