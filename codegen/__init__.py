"""Generators of everything that is derived from `proto/`. `codegen/generate.py` runs them all."""
