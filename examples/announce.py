"""A tool of your own: PYTHONPATH=examples KFM_TOOLS=announce:TOOLS .venv/bin/kfm dev"""

import asyncio
from typing import Any

from kfm.type.v1.type_pb2 import EFFECT_CONTRACT_AT_MOST_ONCE
from kfm_server.ports.tools import ToolCall, ToolSpec


class Announce:
    spec = ToolSpec(
        name="announce",
        description="Says a text on the server's terminal; what was said cannot be taken back.",
        input_schema={
            "type": "object",
            "properties": {"text": {"type": "string"}, "seconds": {"type": "number"}},
        },
        effect=EFFECT_CONTRACT_AT_MOST_ONCE,
    )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        print(arguments.get("text", "hello"), flush=True)
        await asyncio.sleep(arguments.get("seconds", 0))  # a slow loudspeaker
        return {"text": "announced"}


TOOLS = [Announce()]
