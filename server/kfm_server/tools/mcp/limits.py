"""What an MCP server may cost: each bound is told by its name when it is met."""

from typing import Final

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Largest message of a server; what is larger ends the connection."""
TOO_LARGE: Final = f"it sent a message larger than max_message_bytes={MAX_MESSAGE_BYTES}"
"""Why such a connection ended."""
MAX_TOOLS: Final = 128
"""Most tools of one server; those beyond are left out."""
MAX_PAGES: Final = 32
"""Most pages of a list of tools that are read."""
MAX_SCHEMA_BYTES: Final = 64 * 1024
"""Largest schema of a tool's arguments, as canonical JSON."""
MAX_DESCRIPTION: Final = 2000
"""Longest description that models are shown, in characters; more is cut."""
MAX_NAME: Final = 64
"""Longest name that plans and models use, in characters."""
