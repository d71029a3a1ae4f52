"""The five-step turn with a step of every effect contract, and a client that watches it to its end."""

import asyncio
import contextlib
import json
import os
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xenocomm import Client
from xenocomm._gen.types import Part, Turn, TurnState, TurnStateEvent, WaitReason

from tests.support.live import LiveServer

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


def mixed(draw: random.Random, index: int) -> tuple[str, tuple[str, ...]]:
    """A drawn plan of two to four steps, partly side by side, and its tools; five in a row cover every contract."""
    tools = [FIVE_TOOLS[index % 5], *draw.choices(FIVE_TOOLS, k=draw.randint(1, 3))]
    draw.shuffle(tools)
    steps = json.loads(plan(*tools))["plan"]["steps"]
    for step in steps:
        if draw.random() < 0.3:
            step.pop("depends_on", None)
    return json.dumps({"plan": {"steps": steps}}), tuple(tools)


async def side_by_side(number: int, client: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """So many clients, by number, each a task; until all are done."""
    async with asyncio.TaskGroup() as running:
        for index in range(number):
            running.create_task(client(index), name=f"client {index}")


def ledger_server(home: Path, ledger: Path, database_url: str = "") -> LiveServer:
    """A server whose tools write to the ledger, over a database of its own if none is named. Not started yet."""
    return LiveServer(
        home,
        tools="tests.support.ledger:TOOLS",
        database_url=database_url,
        environment={"LEDGER_FILE": str(ledger)},
    )


def seeds(most: int, sample: int, full: int = 0) -> list[int]:
    """Seeds 1 to `sample`, `most` or `full`, as `amount` has it; KFM_TEST_SEED replays one (7) or some (1-50)."""
    if told := os.environ.get("KFM_TEST_SEED"):
        first, _, last = told.partition("-")
        return list(range(int(first), 1 + int(last or first)))
    return list(range(1, 1 + _length(most, sample, full)))


def amount(name: str, most: int, sample: int, full: int = 0) -> int:
    """How much of something: the variable's number if it is set, else by the length of the run."""
    return int(os.environ.get(name) or _length(most, sample, full))


def _length(most: int, sample: int, full: int) -> int:
    """`sample` in a sampled run (KFM_TEST_FAULT_SAMPLE), `full` in a run of full length (KFM_TEST_FULL), else `most`."""
    if os.environ.get("KFM_TEST_FAULT_SAMPLE"):
        return sample
    return full or most if os.environ.get("KFM_TEST_FULL") else most


@dataclass
class Watched:
    """What a client saw of one turn."""

    turn_id: str = ""
    sequences: list[int] = field(default_factory=list[int])
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """The turn ended or needs a review."""
    ended: bool = False
    """The turn ended."""


async def run_and_watch(
    endpoint: str, key: str, message: str, watched: Watched, seconds: float = 60.0
) -> Turn:
    """Start a turn and follow it across restarts until it has ended or needs a review; answers it as it then is."""
    async with Client(endpoint, timeout=seconds) as kfm:
        return await follow(kfm, key, message, watched, seconds)


async def follow(kfm: Client, key: str, message: str, watched: Watched, seconds: float = 60.0) -> Turn:
    """The same with a client of the caller's."""
    async with asyncio.timeout(seconds):
        part = Part(data_json=message) if message.startswith("{") else Part(text=message)
        handle = await kfm.turns.start([part], idempotency_key=key)
        watched.turn_id = handle.id
        async with contextlib.aclosing(handle.updates(timeout=seconds)) as updates:
            async for update in updates:
                if update.event is None:
                    continue
                watched.sequences.append(update.event.sequence)
                changed = update.event.event
                if isinstance(changed, TurnStateEvent) and changed.wait_reason == WaitReason.NEEDS_REVIEW:
                    break
        watched.settled.set()
        turn = await handle.get()
        watched.ended = turn.state == TurnState.FINISHED
        return turn
