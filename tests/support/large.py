"""Tools whose outputs do not fit into an event."""

import os
from typing import Any

from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import ToolCall, ToolSpec


class Grow:
    """Answers a body of so many bytes, not the same in two calls."""

    spec = ToolSpec(
        "grow",
        "makes a large body",
        {"type": "object", "properties": {"bytes": {"type": "integer"}}, "required": ["bytes"]},
        types.EFFECT_CONTRACT_AT_MOST_ONCE,
    )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Random hexadecimal text."""
        return {"body": os.urandom(arguments["bytes"] // 2).hex(), "text": "grown"}


class Measure:
    """Answers how long the body is that it gets, and its ends."""

    spec = ToolSpec(
        "measure",
        "measures a body",
        {
            "type": "object",
            "properties": {"body": {"type": "string"}, "more": {}},
            "required": ["body"],
        },
        types.EFFECT_CONTRACT_IDEMPOTENT,
    )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Its length and its first and last characters."""
        body = arguments["body"]
        return {"length": len(body), "ends": body[:8] + body[-8:]}


TOOLS = [Grow(), Measure()]
