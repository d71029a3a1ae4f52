"""Plans as clients bring them, and waiting for what happens in a turn."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xenocomm import Envelope, Part, TurnHandle
from xenocomm._gen.types import StepEvent, TurnStateEvent, WaitReason

SECONDS = 30.0
"""Longest wait for something that a turn does."""


def document(*steps: dict[str, Any]) -> str:
    """The JSON of a plan."""
    return json.dumps({"plan": {"steps": steps}})


def given(*steps: dict[str, Any]) -> list[str | Part]:
    """A message that brings its plan."""
    return [Part(data_json=document(*steps))]


def call(key: str, tool: str, *after: str, timeout_ms: int = 0, **arguments: Any) -> dict[str, Any]:
    """A TOOL step that follows others."""
    step: dict[str, Any] = {
        "key": key,
        "kind": "tool",
        "tool": tool,
        "arguments": arguments,
        "depends_on": [*after],
    }
    return step | ({"timeout_ms": timeout_ms} if timeout_ms else {})


def question(key: str, *after: str, timeout_ms: int = 0) -> dict[str, Any]:
    """A HUMAN step that follows others."""
    step: dict[str, Any] = {"key": key, "kind": "human", "instructions": "May it?", "depends_on": [*after]}
    return step | ({"timeout_ms": timeout_ms} if timeout_ms else {})


async def until(turn: TurnHandle, wanted: Callable[[Envelope], bool], after: int = 0) -> list[Envelope]:
    """The events up to the first that is wanted. AssertionError if the turn ends, or the time, without one."""
    seen: list[Envelope] = []
    async with asyncio.timeout(SECONDS), contextlib.aclosing(turn.events(after)) as events:  # type: ignore[type-var]
        async for event in events:
            seen.append(event)
            if wanted(event):
                return seen
    raise AssertionError([e.event for e in seen])


def started(step_key: str) -> Callable[[Envelope], bool]:
    """The step was dispatched."""
    return lambda e: isinstance(e.event, StepEvent) and e.event.step_key == step_key


def waits(reason: WaitReason) -> Callable[[Envelope], bool]:
    """The turn waits for this reason."""
    return lambda e: isinstance(e.event, TurnStateEvent) and e.event.wait_reason == reason


class Gate:
    """A file that held tools wait for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def hold(self) -> str:
        """The tools' argument."""
        return str(self.path)

    def open(self) -> None:
        """Let them go."""
        self.path.touch()
