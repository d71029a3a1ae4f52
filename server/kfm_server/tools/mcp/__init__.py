"""Tools of MCP servers that the configuration names. The SDK takes a second to import: only composition/mcp.py does it."""
