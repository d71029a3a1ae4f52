"""The five-step turn with a step of every effect contract, and a client that watches it to its end."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

from xenocomm import Client
from xenocomm._gen.types import Part, Turn, TurnStateEvent, WaitReason

FIVE_TOOLS = (
    "ledger_pure",
    "ledger_idempotent",
    "ledger_transactional",
    "ledger_once",
    "ledger_compensatable",
)


def plan(*tools: str, **arguments: Any) -> str:
    """A sequential plan of the tools, as a client brings it."""
    steps: list[dict[str, Any]] = []
    for index, tool in enumerate(tools, 1):
        step: dict[str, Any] = {"key": f"s{index}", "kind": "tool", "tool": tool, "arguments": arguments}
        if index > 1:
            step["depends_on"] = [f"s{index - 1}"]
        steps.append(step)
    return json.dumps({"plan": {"steps": steps}})


@dataclass
class Watched:
    """What a client saw of one turn."""

    turn_id: str = ""
    sequences: list[int] = field(default_factory=list[int])
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """The turn ended or needs a review."""


async def run_and_watch(
    endpoint: str, key: str, message: str, watched: Watched, seconds: float = 60.0
) -> Turn:
    """Start a turn and follow it across restarts until it has ended or needs a review; answers it as it then is."""
    async with asyncio.timeout(seconds), Client(endpoint, timeout=seconds) as kfm:
        handle = await kfm.turns.start([Part(data_json=message)], idempotency_key=key)
        watched.turn_id = handle.id
        async with contextlib.aclosing(handle.events(timeout=seconds)) as events:
            async for event in events:
                watched.sequences.append(event.sequence)
                changed = event.event
                if isinstance(changed, TurnStateEvent) and changed.wait_reason == WaitReason.NEEDS_REVIEW:
                    break
        watched.settled.set()
        return await handle.get()
