"""The extra kfm-server[mcp]: the doors that offer the bridge load it late, and say so if it is not installed."""

_PARTS = ("kfm_mcp", "mcp", "mcp_types")


def is_of_mcp_extra(missing: ModuleNotFoundError) -> bool:
    """Whether an import failed because the extra is not installed, and not for a fault within it."""
    return (missing.name or "").partition(".")[0] in _PARTS
