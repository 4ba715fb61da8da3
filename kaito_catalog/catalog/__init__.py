"""The catalog on disk, its licences, and what a change of it concerns."""
