"""Fixtures that the official conformance suite asks for by name; mounted by `kfm mcp --conformance` and nowhere else."""
