"""kaito-catalog: proposals of models for KAITO as data, with the tooling that proves every entry."""

__version__ = "0.1.0"
