"""What a worker holds: it performs leases, and keeps each result until the server has acknowledged it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import structlog
from kfm.event.v1 import turn_events_pb2 as events
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server import failpoints
from kfm_server.clock import Clock
from kfm_server.ports.attempt_refs import MOST_HELD, Key, key_of
from kfm_server.ports.steps import (
    GONE,
    STOPPED,
    Attempt,
    AttemptLost,
    AttemptResult,
    DeltaKind,
    Failure,
    Progress,
)
from kfm_server.steps.middleware import failed, given_up
from kfm_server.worker.lease import Held, at_hand, result_of

log = structlog.get_logger(__name__)
_ROUGH_US: Final = 1_000_000
_RECEIVED = failpoints.declare("worker.lease.received")

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Runs something as a task of the process."""
Run = Callable[[Attempt, Progress], Coroutine[Any, Any, AttemptResult]]
"""Performs an attempt, as the StepRunner of ports/steps.py does."""


class Line(Protocol):
    """The way to the server."""

    def tell(self, request: pb.WorkRequest) -> None:
        """Send it in order; lost if no stream stands, or if it breaks first."""
        ...

    def tell_at_best(self, request: pb.WorkRequest) -> None:
        """The same, unless the stream is behind."""
        ...


class Leases:
    """All leases of one worker, whatever stream they came from."""

    def __init__(
        self, run: Run, tools: Mapping[str, object] | None, capacity: int, clock: Clock, spawn: Spawn
    ) -> None:
        """`tools`: the names that are performed here, all if None; `capacity`: attempts at one time."""
        self.capacity = capacity
        self.line: Line | None = None
        self.empty = asyncio.Event()
        """Nothing is held: all results are acknowledged."""
        self.empty.set()
        self._run = run
        self._tools = tools
        self._clock = clock
        self._spawn = spawn
        self._held: dict[Key, Held] = {}
        self._running = 0
        self._ahead_us = 0
        self._apart_us: int | None = None
        """How far the wall clock was from the steady one when it was compared with the server's."""

    def refs(self) -> list[pb.AttemptRef]:
        """All that is held, running or with a result to tell."""
        return [held.lease.ref for held in self._held.values()]

    @property
    def running(self) -> int:
        """Attempts that are at work."""
        return self._running

    def take(self, lease: pb.Lease) -> None:
        """Perform it, or decline what is unknown or too much. One that is held already goes on."""
        failpoints.hit(_RECEIVED)
        if key_of(lease.ref) in self._held:
            return
        if self._tools is not None and lease.tool not in self._tools:
            why = f"this worker has no tool {lease.tool[:80]!r}"
        elif not self.capacity:
            why = "this worker is leaving"
        elif len(self._held) >= MOST_HELD:
            why = f"{MOST_HELD} results of this worker wait to be acknowledged"
        elif self._running >= self.capacity:
            why = f"this worker performs {self.capacity} attempts at one time (--capacity)"
        else:
            self.go_on(lease, self._run)
            return
        log.info("lease_declined", **_facts(lease.ref), tool=lease.tool, reason=why)
        self._tell(pb.WorkRequest(decline=pb.Decline(ref=lease.ref, reason=why)))

    def now_us(self) -> int:
        """The worker's own wall clock, in microseconds since the epoch."""
        return self._clock.now_us()

    def set_clock(self, asked_us: int, there_us: int) -> None:
        """The server's clock said `there_us` between `asked_us` and now. A slow answer tells little, and is passed over."""
        told_us = self._clock.now_us()
        if 0 <= told_us - asked_us <= _ROUGH_US:
            self._ahead_us = there_us - (asked_us + told_us) // 2
            self._apart_us = self._apart()

    @property
    def clock_was_set(self) -> bool:
        """The wall clock has jumped since then: it has to be compared again."""
        return self._apart_us is not None and abs(self._apart() - self._apart_us) > _ROUGH_US

    def _apart(self) -> int:
        return self._clock.now_us() - int(self._clock.monotonic() * 1_000_000)

    def go_on(self, lease: pb.Lease, run: Run) -> None:
        """Hold it, and perform it so. One that is held already goes on."""
        held = Held(lease, self._clock.monotonic(), self._clock.now_us(), self._ahead_us)
        if held.key not in self._held:
            self._held[held.key] = held
            self._running += 1
            self.empty.clear()
            held.task = self._spawn(self._perform(held, run))

    def let_go(self, which: Callable[[pb.AttemptRef], bool] = lambda ref: True) -> None:
        """Forget these, without a word to whoever performs them."""
        for held in [held for held in self._held.values() if which(held.lease.ref)]:
            if held.task is not None:
                held.task.cancel()
            self._forget(held)

    def cancel(self, ref: pb.AttemptRef, reason: str) -> None:
        """Stop the attempt; its result is told all the same. What is not held, or has ended, is passed over."""
        held = self._held.get(key_of(ref))
        if held is not None and not held.stopped and held.result is None:
            held.stopped = reason or "the server asked for it"
            if held.running and held.task is not None:
                held.task.cancel(STOPPED)

    def acknowledged(self, ack: pb.Ack) -> None:
        """The result was dealt with: forget it."""
        held = self._held.get(key_of(ack.ref))
        if held is None or held.result is None:
            return
        if held.recorded is not None:
            held.recorded(ack.accepted)
        if not ack.accepted:
            log.warning("result_refused", **_facts(ack.ref), tool=held.lease.tool)
        self._forget(held)

    def results(self, unanswered_for: float = 0) -> list[pb.LeaseResult]:
        """Those that wait for their acknowledgement, to be told now; only those told so many seconds ago."""
        now = self._clock.monotonic()
        found = [
            (held, held.result)
            for held in self._held.values()
            if held.result is not None and now - held.told >= unanswered_for
        ]
        for held, _ in found:
            held.told = now
        return [result for _, result in found]

    def leave(self) -> None:
        """Take no more; what runs goes on."""
        self.capacity = 0
        self._tell(pb.WorkRequest(capacity=pb.Capacity(capacity=0)))

    def give_up(self) -> None:
        """End what still runs; what became of it is told."""
        for held in self._held.values():
            if held.result is None:
                self.cancel(held.lease.ref, _LEFT)

    def _forget(self, held: Held) -> None:
        del self._held[held.key]
        if not self._held:
            self.empty.set()

    async def _perform(self, held: Held, run: Run) -> None:
        at_hand.set(held)
        held.running = True
        try:
            told = _stopped(held, started=False) if held.stopped else await self._end_of(held, run)
        finally:
            held.running = False
            self._running -= 1
        held.result, held.told = told, self._clock.monotonic()
        self._tell(pb.WorkRequest(result=told))

    async def _end_of(self, held: Held, run: Run) -> pb.LeaseResult:
        def progress(text: str, kind: DeltaKind = "progress") -> None:
            if self.line is not None:
                delta = pb.LeaseDelta(ref=held.lease.ref, progress=text)
                self.line.tell_at_best(pb.WorkRequest(delta=delta))

        task = asyncio.current_task()
        assert task is not None
        try:
            result = await run(held.attempt(), progress)
            held.recorded = result.recorded
            return result_of(held.lease.ref, result)
        except AttemptLost as lost:
            known = {} if lost.gone_us else {GONE: "1"}
            why = Failure("REASON_STEP_OUTCOME_UNKNOWN", "The worker is gone.", metadata=known)
            gone = AttemptResult(events.STEP_STATUS_UNKNOWN, failure=why)
            return result_of(held.lease.ref, gone)
        except asyncio.CancelledError:
            if not held.stopped or task.uncancel():
                raise  # the process ends
            return _stopped(held, started=True)

    def _tell(self, request: pb.WorkRequest) -> None:
        if self.line is not None:
            self.line.tell(request)


_LEFT = "the worker was stopped before the step ended"


def _stopped(held: Held, *, started: bool) -> pb.LeaseResult:
    """What is told of an attempt that was cancelled: by the server, or because the worker had to go."""
    ref = held.lease.ref
    if held.stopped != _LEFT:
        return result_of(
            ref,
            failed("REASON_CANCELLED", f"Cancelled: {held.stopped}.", status=events.STEP_STATUS_CANCELLED),
        )
    status = given_up(held.attempt()) if started else events.STEP_STATUS_FAILED
    return result_of(ref, failed("REASON_TOOL_UNAVAILABLE", f"{_LEFT}.", retryable=True, status=status))


def _facts(ref: pb.AttemptRef) -> dict[str, Any]:
    return {"turn_id": ref.turn_id, "step_key": ref.step_key, "attempt": ref.attempt}
