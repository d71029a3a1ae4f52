"""A worker on the broker: takes a pool's steps from the topic of dispatches, and puts results on that of results.

For PURE and IDEMPOTENT steps only: when partitions move from one worker to another, a step may be performed twice.
The group's position moves once everything before it is done, its results published. It needs no database and no server.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from kfm.catalogue.events import fill
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.type.v1 import type_pb2 as types

from kfm_server import failpoints
from kfm_server.clock import Clock
from kfm_server.ports.broker import (
    OFFSET,
    POOL,
    RESULTS,
    STEPS,
    Broker,
    BrokerUnavailable,
    Message,
    MessageRefused,
    Received,
    WorkGroup,
    message_id,
)
from kfm_server.ports.steps import Attempt, AttemptResult, DeltaKind
from kfm_server.worker.lease import context_of, tell_failure

log = structlog.get_logger(__name__)
_BEFORE_RESULT = failpoints.declare("worker.bus.result.before")
_AFTER_RESULT = failpoints.declare("worker.bus.result.after")
_BEFORE_COMMIT = failpoints.declare("worker.bus.commit.before")

ASSIGNMENT_SECONDS: Final = 0.2
"""Between two looks at which partitions are ours."""
COMMIT_SECONDS: Final = 0.5
IDLE_SECONDS: Final = (0.001, 0.01)
"""Between two looks at the heads, at first and after a while without work; as long as a look took, if that is longer."""
_AWAY_SECONDS: Final = 0.5
_READ: Final = 64
_TAKEN = (types.EFFECT_CONTRACT_PURE, types.EFFECT_CONTRACT_IDEMPOTENT)
Run = Callable[[Attempt, Any], Coroutine[Any, Any, AttemptResult]]
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(slots=True)
class _Lane:
    """A partition of ours: what was read of it, what of that is not done, and what was committed."""

    read: int
    committed: int
    open: set[int] = field(default_factory=set[int])
    going: bool = False
    """It is to go to another worker, and goes when all that was read of it is committed."""

    @property
    def done(self) -> int:
        """All up to here is done."""
        return min(self.open) - 1 if self.open else self.read


class BusWorker:
    """One worker of a pool on the broker. `run` until cancelled; `leave` before that, to finish what runs."""

    def __init__(
        self,
        broker: Broker,
        group: WorkGroup,
        run: Run,
        *,
        pool: str,
        name: str,
        capacity: int,
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        """`name` is told with each result; `capacity`: attempts at one time."""
        self._broker = broker
        self._group = group
        self._perform = run
        self._pool = pool
        self._name = name
        self._capacity = capacity
        self._clock = clock
        self._spawn = spawn
        self._lanes: dict[int, _Lane] = {}
        self._running = 0
        self._changed = asyncio.Event()
        self.empty = asyncio.Event()
        """Nothing runs."""
        self.empty.set()

    async def run(self) -> None:
        """Take steps until cancelled. A broker that is away is waited for."""
        loop = asyncio.get_running_loop()
        looked = committed = 0.0
        idle, told = IDLE_SECONDS[0], False
        try:
            while True:
                try:
                    if loop.time() - looked > ASSIGNMENT_SECONDS:
                        await self._follow()
                        looked = loop.time()
                    began = loop.time()
                    took = await self._take()
                    busy = loop.time() - began
                    if loop.time() - committed > COMMIT_SECONDS:
                        await self._commit()
                        committed = loop.time()
                    told = False
                except BrokerUnavailable as away:
                    if not told:
                        log.warning("broker_away", pool=self._pool, error=str(away))
                    told, looked = True, 0.0
                    self._lanes.clear()  # what is uncommitted comes again
                    await asyncio.sleep(_AWAY_SECONDS)
                    continue
                idle = min(max(IDLE_SECONDS[0] if took else idle * 1.1, busy), IDLE_SECONDS[1])
                self._changed.clear()
                try:
                    async with asyncio.timeout(idle):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            await self._group.leave()

    async def leave(self) -> None:
        """Take no more; returns when what runs has ended and is committed."""
        self._capacity = 0
        await self.empty.wait()
        try:
            await self._commit()
        except BrokerUnavailable as away:
            log.warning("broker_away", pool=self._pool, error=str(away))

    async def _follow(self) -> None:
        await self._group.join()
        assigned = await self._group.assigned()
        for partition in [p for p in self._lanes if p not in assigned]:
            await self._commit_one(partition)
            self._lanes[partition].going = True
            if not self._lanes[partition].open:
                del self._lanes[partition]
        for partition, offset in assigned.items():
            lane = self._lanes.get(partition)
            if lane is None or (lane.going and offset > lane.committed):  # another had it in the meantime
                self._lanes[partition] = _Lane(offset, offset)
            else:
                lane.going = False

    async def _take(self) -> bool:
        """Read what is new and start it, as far as there are places; answers whether anything was."""
        if self._running >= self._capacity or not self._lanes:
            return False
        heads = await self._broker.heads(STEPS)
        took = False
        for partition, lane in list(self._lanes.items()):
            if lane.going:
                continue
            head = heads.get(partition, 0)
            if head < lane.read and not lane.open:
                log.warning("broker_lost_its_tail", partition=partition, head=head, read=lane.read)
                lane.read = lane.committed = head
            room = min(_READ, self._capacity - self._running)
            if head <= lane.read or room <= 0:
                continue
            found = await self._group.read(partition, lane.read, room)
            self._lanes[partition] = self._lanes.pop(partition)  # the others are next: none is to starve
            for message in found:
                lane.read = max(lane.read, message.offset)
                took |= self._start(lane, message)
        return took

    def _start(self, lane: _Lane, message: Received) -> bool:
        """Perform it, if it is for us."""
        if message.headers.get(POOL) != self._pool or OFFSET not in message.headers:
            return False
        try:
            envelope = Envelope.FromString(message.payload)
            sent = ev.StepEvent.FromString(envelope.payload.value)
        except DecodeError:
            log.warning("dispatch_undecodable", partition=message.partition, offset=message.offset)
            return False
        if sent.contract not in _TAKEN or sent.pool != self._pool:
            return False  # over gRPC: a second start would do harm
        lane.open.add(message.offset)
        self._running += 1
        self.empty.clear()
        self._spawn(self._do(lane, message, envelope, sent))
        return True

    async def _do(self, lane: _Lane, message: Received, envelope: Envelope, sent: ev.StepEvent) -> None:
        try:
            result = await self._perform(attempt_of(envelope, sent), _no_progress)
            if await self._tell(message.partition, envelope, sent, result):
                lane.open.discard(message.offset)
        finally:
            if self._running == self._capacity:
                self._changed.set()  # there is a place again
            self._running -= 1
            if not self._running:
                self.empty.set()

    async def _tell(
        self, partition: int, envelope: Envelope, sent: ev.StepEvent, result: AttemptResult
    ) -> bool:
        """Publish the result until the broker has it, or the owner has given the attempt up."""
        told = result_envelope(envelope, sent, result, self._name, self._clock.now_us())
        message = Message(told.SerializeToString(), message_id(told.event_id))
        failpoints.hit(_BEFORE_RESULT)
        while True:
            try:
                await self._broker.publish(RESULTS, partition, [message])
                failpoints.hit(_AFTER_RESULT)
                return True
            except MessageRefused as refused:
                log.warning("result_refused", turn_id=envelope.turn_id, step=sent.step_key, why=str(refused))
                return True  # it would be refused again: the owner gives the attempt up at its deadline
            except BrokerUnavailable:
                if self._clock.now_us() > sent.deadline.ToMicroseconds():
                    return True
                await asyncio.sleep(_AWAY_SECONDS)

    async def _commit(self) -> None:
        for partition in list(self._lanes):
            await self._commit_one(partition)

    async def _commit_one(self, partition: int) -> None:
        lane = self._lanes.get(partition)  # who leaves commits beside `run`, which may have let go of it
        if lane is not None and lane.done > lane.committed:
            failpoints.hit(_BEFORE_COMMIT)
            done = lane.done
            await self._group.commit(partition, done)
            lane.committed = done


def _no_progress(text: str, kind: DeltaKind = "progress") -> None:
    """Nobody watches over the broker."""


def attempt_of(envelope: Envelope, sent: ev.StepEvent) -> Attempt:
    """What a dispatch on the broker asks for."""
    return Attempt(
        context=context_of(envelope.tenant_id, sent.principal, envelope.session_id, envelope.traceparent),
        turn_id=envelope.turn_id,
        step_key=sent.step_key,
        attempt=envelope.attempt,
        kind=types.STEP_KIND_TOOL,
        tool=sent.tool,
        arguments_json=sent.parameters_json,
        effect=sent.contract,
        key=sent.key,
        epoch=0,
        start_by_us=sent.start_by.ToMicroseconds(),
        deadline_us=sent.deadline.ToMicroseconds(),
        compensation=sent.compensation,
    )


def result_envelope(
    of: Envelope, sent: ev.StepEvent, result: AttemptResult, worker: str, now_us: int
) -> Envelope:
    """The result of a dispatch, as it is published: the same id for the same attempt, however often it is performed."""
    now = Timestamp()
    now.FromMicroseconds(now_us)
    envelope = Envelope(
        event_id=f"{of.event_id}.result",
        timestamp=now,
        trace_id=of.trace_id,
        traceparent=of.traceparent,
        tenant_id=of.tenant_id,
        session_id=of.session_id,
        turn_id=of.turn_id,
        causation_id=of.event_id,
        attempt=of.attempt,
    )
    event = ev.StepResultEvent(
        step_key=sent.step_key,
        status=result.status,
        output_json=result.output_json,
        compensation=sent.compensation,
        worker=worker,
    )
    event.metrics.run_time.FromMicroseconds(result.run_time_us)
    if result.failure is not None:
        tell_failure(event.error, result.failure)
    fill(envelope, event)
    return envelope
