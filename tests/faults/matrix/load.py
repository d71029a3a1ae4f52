"""Turns in flight, three at any time, each in a session of its own, until the process has been killed."""

import asyncio
import json
import time
from dataclasses import dataclass, field

from xenocomm import Client
from xenocomm._gen.errors import XenocommError
from xenocomm._gen.types import Outcome, StepState, Turn

from tests.faults.matrix.counting import contract_of
from tests.faults.matrix.pool_tools import CALLED
from tests.faults.work import Watched, follow, side_by_side

IN_FLIGHT = 3
TURN_SECONDS = 90.0
"""A turn that has neither ended nor needs a review by then is lost."""


def by_plan() -> str:
    """A plan that calls every tool, one after the other."""
    steps = [
        {"key": f"s{index}", "kind": "tool", "tool": tool, "arguments": {}}
        | ({"depends_on": [f"s{index - 1}"]} if index else {})
        for index, tool in enumerate(CALLED)
    ]
    return json.dumps({"plan": {"steps": steps}})


@dataclass
class Ran:
    """One turn: when it began and settled, by the monotonic clock, and what became of it."""

    began: float
    watched: Watched = field(default_factory=Watched)
    settled: float = 0.0
    turn: Turn | None = None
    why: str = ""
    """What the client raised."""

    @property
    def lost(self) -> bool:
        """It has not ended and does not need a review."""
        return self.turn is None

    @property
    def failed(self) -> bool:
        """It has ended otherwise than with success, or waits for a review of what may well run again."""
        if self.turn is None or (self.watched.ended and self.turn.outcome == Outcome.SUCCEEDED):
            return False
        review = [
            s.definition.tool for s in self.turn.steps if s.state == StepState.NEEDS_REVIEW and s.definition
        ]
        return self.watched.ended or not review or {contract_of(t) for t in review} != {"AT_MOST_ONCE"}


@dataclass
class Load:
    """`message` is what every turn is asked; `key` begins the idempotency keys."""

    endpoint: str
    key: str
    message: str
    ran: list[Ran] = field(default_factory=list[Ran])
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Every client has had an answer."""

    async def run(self) -> None:
        """Until `enough`, and every turn has settled or is lost."""
        await side_by_side(IN_FLIGHT, self._client)

    async def settled_turns(self, more: int) -> None:
        """Wait, bounded, until so many more turns have settled."""
        wanted = sum(r.settled > 0 for r in self.ran) + more
        async with asyncio.timeout(TURN_SECONDS):
            while sum(r.settled > 0 for r in self.ran) < wanted:  # noqa: ASYNC110 (turns of many tasks)
                await asyncio.sleep(0.02)

    async def until_they_succeed(self) -> None:
        """Run turns until the last of each client have succeeded."""
        async with asyncio.timeout(TURN_SECONDS), asyncio.TaskGroup() as group:
            running = group.create_task(self.run(), name="load")
            while not running.done():
                settled = [r for r in list(self.ran) if r.settled]
                if len(settled) > 2 * IN_FLIGHT and not any(
                    r.lost or r.failed for r in settled[-2 * IN_FLIGHT :]
                ):
                    self.enough.set()
                await asyncio.sleep(0.1)

    async def _client(self, number: int) -> None:
        async with Client(self.endpoint, timeout=TURN_SECONDS) as kfm:
            turn = 0
            while not self.enough.is_set():
                ran = Ran(time.monotonic())
                self.ran.append(ran)
                try:
                    ran.turn = await follow(
                        kfm, f"{self.key}-{number}-{turn}", self.message, ran.watched, TURN_SECONDS
                    )
                except (XenocommError, TimeoutError) as error:
                    ran.why = f"{type(error).__name__}: {error}"[:200]
                    return
                finally:
                    ran.settled = time.monotonic()
                turn += 1
                if sum(r.settled > 0 for r in self.ran) >= IN_FLIGHT:
                    self.flowing.set()
