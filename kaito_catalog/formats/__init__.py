"""The file kinds of the catalog: pydantic models, the single source of `schema/*.json`."""
