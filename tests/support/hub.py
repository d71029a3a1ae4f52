"""The hub of worker pools on a clock that only the test moves, and workers whose every word the test says."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb
from kfm_server.clock import VirtualClock
from kfm_server.context import ExecutionContext
from kfm_server.ports.attempt_refs import ref_of
from kfm_server.ports.steps import Attempt, AttemptResult, Failure, Progress
from kfm_server.runtime.pools.hub import WorkerPools
from kfm_server.runtime.pools.worker import Worker

NOW_US = 1_700_000_000_000_000
US = 1_000_000


class Standing:
    """A machine's clocks that stand still."""

    def now_us(self) -> int:
        """Always the same."""
        return NOW_US

    def monotonic(self) -> float:
        """Always the same."""
        return 100.0


def attempt(
    number: int = 1,
    *,
    step: str = "a",
    pool: str = "gpu",
    effect: types.EffectContract = types.EFFECT_CONTRACT_AT_MOST_ONCE,
    now_us: int = NOW_US,
    session: str = "ses_1",
) -> Attempt:
    """An attempt of a step that waits a minute for a worker and then may take ten seconds."""
    return Attempt(
        context=ExecutionContext(session_id=session),
        turn_id="trn_1",
        step_key=step,
        attempt=number,
        kind=types.STEP_KIND_TOOL,
        tool="tool",
        arguments_json="{}",
        effect=effect,
        key=f"trn_1:{step}",
        epoch=1,
        start_by_us=now_us + 60 * US,
        deadline_us=now_us + 70 * US,
        pool=pool,
    )


def good(output: str = "1") -> AttemptResult:
    """A result."""
    return AttemptResult(ev.STEP_STATUS_SUCCEEDED, output)


LOST = AttemptResult(ev.STEP_STATUS_UNKNOWN, failure=Failure("REASON_STEP_OUTCOME_UNKNOWN", "gone"))
"""What another process says of a worker that is gone."""


@dataclass
class Hub:
    """The hub of one process. `mine`: the sessions that it owns; None is all."""

    mine: set[str] | None = None
    sure: bool = True
    told: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.clock = VirtualClock(Standing())
        self.pools = WorkerPools(
            self._local,
            self.clock,
            may_lease=lambda session_id: self.sure,
            owns=lambda session_id: self.mine is None or session_id in self.mine,
            call_later=self.clock.call_later,
        )

    async def _local(self, attempt: Attempt, progress: Progress, connection: Any) -> AttemptResult:
        return good('"here"')

    def progress(self, text: str, kind: str = "progress") -> None:
        """Where pieces of output go."""
        self.told.append(text)

    async def run(self, asked: Attempt) -> asyncio.Task[AttemptResult]:
        """Ask for an attempt."""
        task = asyncio.create_task(self.pools.run(asked, self.progress))
        await rounds()
        return task

    async def adopt(
        self, asked: Attempt, *, guest: bool = False, soon: bool = False
    ) -> asyncio.Task[AttemptResult]:
        """Take up an attempt of an owner before."""
        task = asyncio.create_task(self.pools.adopt(asked, self.progress, guest=guest, soon=soon))
        await rounds()
        return task

    def worker(self, name: str, capacity: int = 1, **fields: Any) -> "Hand":
        """A worker, connected."""
        hand = Hand(self, name, capacity, **fields)
        hand.connect()
        return hand

    async def pass_(self, seconds: float, *alive: "Hand") -> None:
        """Time passes, in which these go on beating."""
        while seconds > 0:
            step = min(seconds, 1.0)
            self.clock.advance(step)
            await rounds()
            for hand in alive:
                hand.beat()
            await rounds()
            seconds -= step


@dataclass
class Hand:
    """A worker: what it was told on its stream."""

    hub: Hub
    name: str
    capacity: int = 1
    pool: str = "gpu"
    instance: str = "i1"
    is_process: bool = False
    holds: list[pb.AttemptRef] = field(default_factory=list[pb.AttemptRef])

    def connect(self, *running: Attempt) -> None:
        """A new stream, with what it holds."""
        self.said: list[pb.WorkResponse] = []
        self.holds = [ref_of(a) for a in running]
        self.send = self.said.append
        hello = pb.Hello(
            worker=self.name,
            pool=self.pool,
            capacity=self.capacity,
            instance=self.instance,
            running=self.holds,
        )
        self.at: Worker = self.hub.pools.connections.connect(hello, self.send, is_process=self.is_process)

    def disconnect(self) -> None:
        """The stream breaks."""
        self.hub.pools.connections.disconnect(self.at, self.send)

    def beat(self, *running: Attempt) -> None:
        """A heartbeat: it holds what it was leased, and these from now on."""
        self.holds += [ref_of(a) for a in running]
        self.hub.pools.connections.heartbeat(
            self.at, [*self.holds, *(lease.ref for lease in self.heard("lease"))]
        )

    def ends(self, ended: Attempt, result: AttemptResult | None = None) -> None:
        """Tell a result."""
        self.hub.pools.connections.result(self.at, ref_of(ended), result or good())

    def declines(self, declined: Attempt) -> None:
        """Give a lease back."""
        self.hub.pools.connections.decline(self.at, ref_of(declined), "no")

    @property
    def leased(self) -> list[tuple[str, int]]:
        """Steps and attempts that it was leased on this stream."""
        return [(r.lease.ref.step_key, r.lease.ref.attempt) for r in self.said if r.HasField("lease")]

    def heard(self, kind: str) -> Sequence[Any]:
        """What it was told, of one kind."""
        return [getattr(r, kind) for r in self.said if r.WhichOneof("message") == kind]

    @property
    def acks(self) -> list[bool]:
        """Whether its results counted."""
        return [ack.accepted for ack in self.heard("ack")]


async def rounds(count: int = 6) -> None:
    """Let the loop do what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)
