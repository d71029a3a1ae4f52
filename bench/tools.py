"""The tools of the measurements: TOOLS for servers (KFM_TOOLS=bench.tools:TOOLS), the others for workers of pools."""

import asyncio
import time
from typing import Any

from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import Tool, ToolCall, ToolSpec


class BenchEffect:
    """Pretends to have an effect: every step must be its own commit, before and after."""

    spec = ToolSpec(
        name="bench_effect",
        description="Does nothing, under the contract AT_MOST_ONCE. Answers with its number plus one.",
        input_schema={
            "type": "object",
            "properties": {"n": {"type": "integer"}},
            "required": ["n"],
            "additionalProperties": False,
        },
        effect=types.EFFECT_CONTRACT_AT_MOST_ONCE,
    )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Answer with n + 1."""
        return {"n": arguments["n"] + 1}


class BenchStep:
    """Tells when it started, under the contract IDEMPOTENT: its dispatch is durable before that. It takes so many seconds."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.spec = ToolSpec(
            name=name,
            description="Does nothing, under the contract IDEMPOTENT. Answers with its number plus one, and the time.",
            input_schema=BenchEffect.spec.input_schema,
            effect=types.EFFECT_CONTRACT_IDEMPOTENT,
        )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Answer with n + 1, and when this was called, in microseconds since the epoch."""
        started_us = time.time_ns() // 1000
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return {"n": arguments["n"] + 1, "started_us": started_us}


TOOLS: list[Tool] = [BenchEffect(), BenchStep("bench_local")]
WORKER: list[Tool] = [BenchStep("bench_worker")]
BUS: list[Tool] = [BenchStep("bench_bus")]
SLOW_WORKER: list[Tool] = [BenchStep("bench_slow_worker", 0.2)]
SLOW_BUS: list[Tool] = [BenchStep("bench_slow_bus", 0.2)]
