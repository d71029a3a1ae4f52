"""The tools of the measurements: TOOLS for servers (KFM_TOOLS=bench.tools:TOOLS), the others for workers of pools."""

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
    """Answers at once, under the contract IDEMPOTENT: its dispatch is durable before it starts."""

    def __init__(self, name: str) -> None:
        self.spec = ToolSpec(
            name=name,
            description="Does nothing, under the contract IDEMPOTENT. Answers with its number plus one.",
            input_schema=BenchEffect.spec.input_schema,
            effect=types.EFFECT_CONTRACT_IDEMPOTENT,
        )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Answer with n + 1."""
        return {"n": arguments["n"] + 1}


TOOLS: list[Tool] = [BenchEffect(), BenchStep("bench_local")]
WORKER: list[Tool] = [BenchStep("bench_worker")]
BUS: list[Tool] = [BenchStep("bench_bus")]
