"""A tool that tells when it was called, and ends when it is let."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import ToolCall, ToolSpec

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
SECONDS = 10.0


@dataclass
class Gated:
    """A tool that tells when it was called, and ends when it is let."""

    name: str = "gated"
    effect: types.EffectContract = types.EFFECT_CONTRACT_IDEMPOTENT
    says: tuple[str, ...] = ()
    calls: asyncio.Queue[ToolCall] = field(default_factory=asyncio.Queue[ToolCall])
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    output: Any = "done"

    @property
    def spec(self) -> ToolSpec:
        """What it promises."""
        return ToolSpec(self.name, "waits", SCHEMA, self.effect)

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Wait, and answer the output with the arguments."""
        self.calls.put_nowait(call)
        for text in self.says:
            call.progress(text)
        await self.opened.wait()
        self.ended.set()
        return {"output": self.output, **arguments}

    async def called(self) -> ToolCall:
        """The next call of it."""
        async with asyncio.timeout(SECONDS):
            return await self.calls.get()
