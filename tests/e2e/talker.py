"""A tool that talks: ten megabytes of progress, as fast as a reader that reads along can take them.

It begins when the file that its arguments name is there, and goes on when the file has grown by a character for each
message: whoever reads along writes one for each that came.
"""

import asyncio
from pathlib import Path
from typing import Any

from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import Tool, ToolCall, ToolSpec

PIECE = 4096
"""Bytes of one message."""
PIECES = 2560
ROUND = 16
"""Messages between two looks at the file: 64 KiB, half of what the server keeps for a reader."""


class Talker:
    """Says PIECES messages of PIECE bytes, or as many as it is told, each with its number."""

    spec = ToolSpec(
        name="talker",
        description="Talks a lot.",
        input_schema={
            "type": "object",
            "properties": {"heard": {"type": "string"}, "pieces": {"type": "integer"}},
            "required": ["heard"],
            "additionalProperties": False,
        },
        effect=types.EFFECT_CONTRACT_IDEMPOTENT,
    )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Talk. The tool's deadline bounds it."""
        heard = Path(arguments["heard"])
        pieces = arguments.get("pieces", PIECES)
        for number in range(pieces):
            if number % ROUND == 0:
                while _size(heard) < number:  # noqa: ASYNC110 (the reader is another process)
                    await asyncio.sleep(0.002)
            call.progress(f"{number:06d}".ljust(PIECE, "."))
        return {"said": pieces}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


TOOLS: list[Tool] = [Talker()]
