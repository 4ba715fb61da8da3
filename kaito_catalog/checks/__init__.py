"""The checks, one module a family; `registry` lists them all."""
