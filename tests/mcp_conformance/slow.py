"""The tool behind the suite's fixtures that are turns: it takes its time, and fails when told to."""

import asyncio
from typing import Any

from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import ToolCall, ToolError, ToolSpec


class Slow:
    """Answers after some seconds."""

    spec = ToolSpec(
        "conformance_slow",
        "Waits, then answers",
        {
            "type": "object",
            "properties": {
                "seconds": {"type": "number", "minimum": 0, "maximum": 60},
                "label": {"type": "string", "maxLength": 64},
                "fail": {"type": "boolean"},
            },
            "additionalProperties": False,
        },
        types.EFFECT_CONTRACT_PURE,
    )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """The label. ToolError if it shall fail."""
        await asyncio.sleep(arguments.get("seconds", 0))
        if arguments.get("fail"):
            raise ToolError("It failed, as it was told to.")
        return {"label": arguments.get("label", "")}


TOOLS = [Slow()]
