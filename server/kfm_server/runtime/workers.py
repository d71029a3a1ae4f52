"""The hub of worker pools: hands attempts to the workers that are connected here, and waits for what they come to.

One per process. An attempt waits in its pool for a worker with a place, is leased to it, and ends with the worker's
result, or is lost: its worker was silent for a lease, or came back without it. A stream that breaks loses nothing: the
worker tells on its next one what it holds. An attempt is found again under the same reference after a takeover.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from kfm.admin.v1 import admin_service_pb2 as admin
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server import failpoints, metrics
from kfm_server.clock import CallLater, Clock, Timer, on_the_loop
from kfm_server.ports.steps import (
    GONE,
    STOPPED,
    Attempt,
    AttemptLost,
    AttemptResult,
    Failure,
    Progress,
)
from kfm_server.tool_catalogue import ToolCatalogue
from kfm_server.turns.bodies import is_large
from kfm_server.turns.times import duration, timestamp

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 3.0
"""A worker that is silent for so long is taken for dead, and what it held is lost."""
START_SECONDS: Final = 2.0
"""How long a worker may take to start what it was leased."""
_LATE_SECONDS: Final = 2.0
"""How long after its deadline an attempt's result is waited for: the worker ends it by itself."""
MOST_HELD: Final = 1000
"""Attempts that a worker may hold, and results that are kept of it until somebody asks for them."""
_KEPT_BYTES: Final = 64 << 20
"""Of those results, for each worker. What is not kept the worker tells again."""
_REMEMBERED: Final = 10_000
"""Results that were acknowledged last: told again, for want of that, they are acknowledged again."""
_BEFORE_LEASE = failpoints.declare("pool.lease.before")
_AFTER_LEASE = failpoints.declare("pool.lease.after")
_BEFORE_ACK = failpoints.declare("pool.ack.before")

_HARMLESS = (types.EFFECT_CONTRACT_PURE, types.EFFECT_CONTRACT_IDEMPOTENT)
Key = tuple[str, str, int]
Run = Callable[[Attempt, Progress, Any], Coroutine[Any, Any, AttemptResult]]
Send = Callable[[pb.WorkResponse], None]


@dataclass(eq=False, slots=True)
class _Job:
    """An attempt that somebody here awaits."""

    attempt: Attempt
    progress: Progress
    ended: asyncio.Future[AttemptResult]
    worker: "Worker | None" = None
    guest: bool = False
    """Of another process, which is the owner: for workers that are connected here, and for no third process."""
    queued: bool = False
    seen: bool = False
    """The worker told of it: the lease has reached it."""
    gone_us: int = 0
    """When it has surely ended, should its worker be lost."""
    timer: Timer | None = None

    @property
    def key(self) -> Key:
        return self.attempt.turn_id, self.attempt.step_key, self.attempt.attempt


@dataclass(frozen=True, slots=True)
class _Told:
    """A result, and of which attempt."""

    ref: pb.AttemptRef
    result: AttemptResult


@dataclass(eq=False, slots=True)
class Worker:
    """A worker, over all its streams. `held`: what it says, or was told, that it performs."""

    hello: pb.Hello
    since: Timestamp
    send: Send | None = None
    """Its stream; None while it has none."""
    capacity: int = 0
    held: dict[Key, pb.AttemptRef] = field(default_factory=dict[Key, pb.AttemptRef])
    results: dict[Key, "_Told"] = field(default_factory=dict[Key, "_Told"])
    """Results of attempts that nobody here awaits, or not yet."""
    declined: set[Key] = field(default_factory=set[Key])
    """What it gave back: it gets it again once it may have a place."""
    is_process: bool = False
    """It is another process, on behalf of the workers that are connected there."""
    silence: Timer | None = None

    @property
    def name(self) -> str:
        return self.hello.worker

    @property
    def pool(self) -> str:
        return self.hello.pool


class WorkerPools:
    """The StepRunner of a process: attempts of the pool `local` go to `local`, others to workers."""

    def __init__(
        self,
        local: Run,
        clock: Clock,
        *,
        may_lease: Callable[[str], bool] = lambda session_id: True,
        owns: Callable[[str], bool] = lambda session_id: True,
        tools: Callable[[], ToolCatalogue] = dict,
        over_bus: frozenset[str] = frozenset(),
        call_later: CallLater = on_the_loop,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """`may_lease`: the partition of a session is surely ours. `owns`: it is, and all that it awaits was asked for.

        `tools`: the catalogue, for operators. `over_bus`: pools whose workers take PURE and IDEMPOTENT steps from the
        broker, where the relay puts them; their results come through `bus_result`.
        """
        self.lease_seconds = lease_seconds
        self._local = local
        self._clock = clock
        self._may_lease = may_lease
        self._owns = owns
        self._tools = tools
        self._call_later = call_later
        self._over_bus = over_bus
        self._bus = Worker(pb.Hello(worker="bus"), timestamp(clock.now_us()))
        self._changed: Callable[[], None] = lambda: None
        self._jobs: dict[Key, _Job] = {}
        self._waiting: dict[str, deque[_Job]] = {}
        self._workers: dict[tuple[str, str], Worker] = {}
        self._answered: dict[tuple[str, str, Key], bool] = {}
        self._leaving = False

    def run(
        self, attempt: Attempt, progress: Progress, connection: Any = None
    ) -> Coroutine[Any, Any, AttemptResult]:
        """As the port says."""
        if not attempt.pool:
            return self._local(attempt, progress, connection)
        return self._lease(attempt, progress)

    async def adopt(
        self, attempt: Attempt, progress: Progress, *, soon: bool = False, guest: bool = False
    ) -> AttemptResult:
        """As the port says. `guest`: for another process, see run_guest."""
        if self._goes_over_bus(attempt):
            return await self._lease(attempt, progress)
        job = self._enter(attempt, progress)
        job.guest = guest
        timeout_us = attempt.deadline_us - attempt.start_by_us
        # Its owner handed it over while its lease was sure, which is over: it was to start soon after that.
        latest = self._clock.now_us() + int(START_SECONDS * 1e6) + timeout_us
        job.gone_us = attempt.deadline_us if guest else min(attempt.deadline_us, latest)
        key = job.key
        holder = next(
            (
                w
                for w in self._workers.values()
                if w.pool == attempt.pool and (key in w.held or key in w.results)
            ),
            None,
        )
        if holder is None:
            patience = self.lease_seconds / 2 if soon else self.lease_seconds
            job.timer = self._call_later(patience, lambda: self._lose(job))
        else:
            self._attach(job, holder)
        return await self._outcome(job)

    def withdraw(self, turn_id: str, step_key: str, attempt: int) -> None:
        """As the port says."""
        job = self._jobs.get((turn_id, step_key, attempt))
        if job is not None and job.queued:
            self._end(
                job, _unstarted("REASON_POOL_UNAVAILABLE", "the turn ended before a worker took the step")
            )

    def run_guest(self, attempt: Attempt, progress: Progress) -> Coroutine[Any, Any, AttemptResult]:
        """Perform an attempt of a session that another process owns, by a worker that is connected here."""
        return self._lease(attempt, progress, guest=True)

    async def _lease(self, attempt: Attempt, progress: Progress, *, guest: bool = False) -> AttemptResult:
        job = self._enter(attempt, progress)
        job.guest = guest
        if self._goes_over_bus(attempt):
            job.gone_us = attempt.deadline_us
            self._attach(job, self._bus)
        else:
            self._queue(job)
            self._offer(attempt.pool)
        return await self._outcome(job)

    def _goes_over_bus(self, attempt: Attempt) -> bool:
        """Its dispatch is all that a worker needs, and a redelivery does no harm."""
        fits = attempt.effect in _HARMLESS and not is_large(attempt.arguments_json)
        return fits and attempt.pool in self._over_bus

    def bus_result(self, ref: pb.AttemptRef, result: AttemptResult) -> None:
        """A worker says on the broker how an attempt ended, to the owner of its partition."""
        self.result(self._bus, ref, result)

    def _enter(self, attempt: Attempt, progress: Progress) -> _Job:
        job = _Job(attempt, progress, asyncio.get_running_loop().create_future())
        self._jobs[job.key] = job
        return job

    async def _outcome(self, job: _Job) -> AttemptResult:
        try:
            return await job.ended
        except asyncio.CancelledError as cancelled:
            if STOPPED in cancelled.args and job.worker is not None:
                self._tell(
                    job.worker, pb.WorkResponse(cancel=pb.Cancel(ref=ref_of(job.attempt), reason=STOPPED))
                )
            raise
        finally:
            if job.timer is not None:
                job.timer.cancel()
            if job.queued:
                self._waiting[job.attempt.pool].remove(job)
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]

    # What waits

    def _queue(self, job: _Job, *, first: bool = False) -> None:
        """Let it wait for a worker, until its latest start."""
        waiting = self._waiting.setdefault(job.attempt.pool, deque())
        (waiting.appendleft if first else waiting.append)(job)
        job.queued, job.worker, job.seen = True, None, False
        if job.timer is not None:
            job.timer.cancel()
        late = max(0.0, (job.attempt.start_by_us - self._clock.now_us()) / 1e6)
        job.timer = self._call_later(late, lambda: self._not_taken(job))
        if self._leaving:
            self._stay(job)

    def _offer(self, pool: str) -> None:
        """Lease what waits, in its order, each to the worker with most places."""
        serving = [w for w in self._workers.values() if w.pool == pool and w.send]
        for job in tuple(self._waiting.get(pool, ())):
            free = [w for w in serving if len(w.held) < w.capacity]
            if not free:
                return
            free = [w for w in free if job.key not in w.declined and not (job.guest and w.is_process)]
            if not free or job.ended.done():
                continue
            # Late: this process was frozen, or the one that sent it.
            if job.attempt.start_by_us < self._clock.now_us():
                self._not_taken(job)
                continue
            self._waiting[pool].remove(job)
            job.queued = False
            if job.guest or self._may_lease(job.attempt.context.session_id):
                self._hand_over(job, max(free, key=lambda w: w.capacity - len(w.held)))
            else:
                self._end(
                    job, _unstarted("REASON_FENCED", "the lease was not sure enough to start an effect")
                )

    def _hand_over(self, job: _Job, worker: Worker) -> None:
        attempt, now = job.attempt, self._clock.now_us()
        ref = ref_of(attempt)
        start_by = min(attempt.start_by_us, now + int(START_SECONDS * 1e6))
        timeout = max(0, attempt.deadline_us - attempt.start_by_us)
        failpoints.hit(_BEFORE_LEASE)
        worker.held[job.key] = ref
        job.worker = worker
        job.gone_us = start_by + timeout
        self._wait_for_end(job, (job.gone_us - now) / 1e6)
        self._tell(
            worker,
            pb.WorkResponse(
                lease=pb.Lease(
                    ref=ref,
                    tool=attempt.tool,
                    arguments_json=attempt.arguments_json,
                    key=attempt.key,
                    effect=attempt.effect,
                    tenant_id=attempt.context.tenant_id,
                    principal=attempt.context.principal,
                    start_within=duration(start_by - now),
                    timeout=duration(timeout),
                    compensation=attempt.compensation,
                    traceparent=attempt.context.traceparent,
                    start_by=timestamp(start_by),
                )
            ),
        )
        failpoints.hit(_AFTER_LEASE)

    def _wait_for_end(self, job: _Job, seconds: float) -> None:
        if job.timer is not None:
            job.timer.cancel()
        job.timer = self._call_later(max(0.0, seconds) + _LATE_SECONDS, lambda: self._give_up(job))

    def _attach(self, job: _Job, worker: Worker) -> None:
        """The worker has it: wait for its result, or take the one that is there."""
        job.worker, job.seen = worker, True
        self._wait_for_end(job, (job.gone_us - self._clock.now_us()) / 1e6)
        told = worker.results.pop(job.key, None)
        if told is not None:
            self._conclude(job, worker, told)

    def _conclude(self, job: _Job, worker: Worker, told: _Told) -> None:
        if worker.is_process and _is_lost(told.result):
            failure = told.result.failure
            self._lose(job, 0 if failure is not None and GONE in failure.metadata else None)
            self._ack(worker, told.ref, True)
        else:
            self._end(job, told.result)

    # How an attempt ends

    def _end(self, job: _Job, result: AttemptResult) -> None:
        if not job.ended.done():
            job.ended.set_result(result)

    def _not_taken(self, job: _Job) -> None:
        pool = job.attempt.pool
        served = sum(1 for w in self._workers.values() if w.pool == pool and w.send)
        why = f"all {served} workers are busy" if served else "none is connected"
        self._end(
            job, _unstarted("REASON_POOL_UNAVAILABLE", f"no worker of pool {pool!r} took the step: {why}")
        )

    def _stay(self, job: _Job) -> None:
        self._end(
            job, _unstarted("REASON_POOL_UNAVAILABLE", "the server stopped before a worker took the step")
        )

    def _give_up(self, job: _Job) -> None:
        """Its worker lives, and has not ended it by its deadline."""
        if job.worker is not None:
            self._tell(
                job.worker, pb.WorkResponse(cancel=pb.Cancel(ref=ref_of(job.attempt), reason="deadline"))
            )
        status = ev.STEP_STATUS_FAILED if job.attempt.effect in _HARMLESS else ev.STEP_STATUS_UNKNOWN
        late = Failure(
            "REASON_STEP_TIMEOUT", "The worker did not end the step by its deadline.", retryable=True
        )
        self._end(job, AttemptResult(status, failure=late))

    def _miss(self, job: _Job, worker: Worker) -> None:
        """The worker had it, and says that it does not hold it: it performs it no more.

        Another process says so too when it has begun anew: then it may tell of its worker's attempt again.
        """
        if not worker.is_process:
            self._lose(job, 0)
            return
        job.worker = None
        if job.timer is not None:
            job.timer.cancel()
        job.timer = self._call_later(self.lease_seconds, lambda: self._lose(job))

    def _lose(self, job: _Job, gone_us: int | None = None) -> None:
        metrics.POOL_LOST.labels(job.attempt.pool).inc()
        log.warning(
            "attempt_lost", turn_id=job.attempt.turn_id, step=job.attempt.step_key, attempt=job.attempt.attempt,
            worker=job.worker.name if job.worker else "",
        )  # fmt: skip
        if not job.ended.done():
            late = job.gone_us + int(_LATE_SECONDS * 1e6)  # by the worker's clock, which began at its arrival
            job.ended.set_exception(AttemptLost(late if gone_us is None else gone_us))

    def now_us(self) -> int:
        """The clock by which latest starts are told, in microseconds since the epoch."""
        return self._clock.now_us()

    # What workers say

    def connect(self, hello: pb.Hello, send: Send, *, is_process: bool = False) -> Worker:
        """A stream of a worker has begun. One of the same name and pool goes on as that worker."""
        name = (hello.pool, hello.worker)
        worker = self._workers.get(name)
        if worker is None:
            worker = self._workers[name] = Worker(hello, timestamp(self._clock.now_us()))
        elif worker.send is not None:
            self._tell(
                worker, pb.WorkResponse(leaving=pb.Leaving(reason="another stream of this worker has begun"))
            )
        same = bool(hello.instance) and worker.hello.instance == hello.instance
        worker.hello, worker.send, worker.capacity = hello, send, hello.capacity
        worker.is_process = is_process
        self.heard(worker)
        told = {key_of(ref): ref for ref in hello.running}
        for key in [key for key in worker.held if key not in told]:
            del worker.held[key]
            job = self._jobs.get(key)
            if job is None or job.worker is not worker:
                continue
            if same and not job.seen:
                self._queue(job, first=True)  # the lease was lost on its way
            else:
                self._miss(job, worker)
        self._holds(worker, told.items())
        self._offer(worker.pool)
        self._changed()
        return worker

    def heartbeat(self, worker: Worker, running: Sequence[pb.AttemptRef]) -> None:
        """It lives, and holds these."""
        self.heard(worker)
        told = {key_of(ref): ref for ref in running}
        for key in [key for key in worker.held if key not in told]:
            job = self._jobs.get(key)
            if job is None or job.worker is not worker:
                del worker.held[key]
            elif job.seen:  # else it is on its way to the worker
                del worker.held[key]
                self._miss(job, worker)
        for key in [key for key in worker.results if key not in told]:
            del worker.results[key]  # it has let go of it: who awaits it asks elsewhere
        self._holds(worker, told.items())
        self._ask_again(worker)

    def _holds(self, worker: Worker, refs: Iterable[tuple[Key, pb.AttemptRef]]) -> None:
        for key, ref in refs:
            if (worker.pool, worker.name, key) in self._answered:
                continue  # it was told so in the meantime
            worker.held[key] = ref
            job = self._jobs.get(key)
            if job is None or job.attempt.pool != worker.pool:
                continue
            if job.worker is worker:
                job.seen = True
                continue
            if job.queued:
                self._waiting[worker.pool].remove(job)
                job.queued = False
                job.gone_us = job.attempt.deadline_us
                self._attach(job, worker)
            elif job.worker is None or job.worker.is_process or worker.is_process:
                self._attach(job, worker)  # it was not known, or its worker has moved to another process

    def heard(self, worker: Worker) -> None:
        """It lives: whatever it says tells so."""
        if worker.silence is not None:
            worker.silence.cancel()
        worker.silence = self._call_later(self.lease_seconds, lambda: self._silent(worker))

    def _silent(self, worker: Worker) -> None:
        """For a whole lease: it is taken for dead, until it speaks again."""
        log.warning("worker_silent", worker=worker.name, pool=worker.pool, held=len(worker.held))
        del self._workers[worker.pool, worker.name]
        if worker.send is not None:
            self._tell(
                worker, pb.WorkResponse(leaving=pb.Leaving(reason="no heartbeat came for a whole lease"))
            )
            worker.send = None
        for key in worker.held:
            job = self._jobs.get(key)
            if job is not None and job.worker is worker:
                self._lose(job)

    def delta(self, worker: Worker, ref: pb.AttemptRef, text: str) -> None:
        """A piece of output: told to watchers if the attempt counts still."""
        job = self._jobs.get(key_of(ref))
        if job is not None and job.worker is worker:
            job.progress(text)

    def result(self, worker: Worker, ref: pb.AttemptRef, result: AttemptResult) -> None:
        """An attempt ended. It is acknowledged when it is recorded, or refused as late."""
        whole, ref = ref, pb.AttemptRef()
        ref.CopyFrom(whole)  # a part would keep its whole message in memory
        key = key_of(ref)
        worker.held.pop(key, None)
        result = replace(
            result,
            worker=result.worker or worker.name,
            recorded=lambda counts: self._answer(worker, ref, counts),
        )
        told = _Told(ref, result)
        job = self._jobs.get(key)
        answer = self._answered.get((worker.pool, worker.name, key))
        if answer is not None:
            self._ack(worker, ref, answer)  # its acknowledgement was lost
        elif job is not None and not job.queued and self._is_of(job, worker):
            self._conclude(job, worker, told)
        else:
            # The session may not be loaded yet: whoever loads it asks for the attempt.
            self._keep(worker, told)
        self._ask_again(worker)

    def _is_of(self, job: _Job, worker: Worker) -> bool:
        """The worker's result counts: it has the attempt, or nobody told yet who has."""
        return job.worker is worker or (job.worker is None and job.attempt.pool == worker.pool)

    def _keep(self, worker: Worker, told: _Told) -> None:
        key, kept = key_of(told.ref), worker.results
        size = len(told.result.output_json) + sum(len(other.result.output_json) for other in kept.values())
        if key not in kept and len(kept) < MOST_HELD and size <= _KEPT_BYTES:
            kept[key] = told
            self._call_later(self.lease_seconds, lambda: self._late(worker, told))

    def _late(self, worker: Worker, told: _Told) -> None:
        ref, key = told.ref, key_of(told.ref)
        if worker.results.get(key) is not told:
            return
        if not self._owns(ref.session_id):
            if self._workers.get((worker.pool, worker.name)) is worker:  # else it tells on its next stream
                self._call_later(self.lease_seconds, lambda: self._late(worker, told))
            return
        del worker.results[key]
        metrics.LATE_RESULTS.inc()
        log.warning("late_result_refused", turn_id=ref.turn_id, step=ref.step_key, worker=worker.name)
        self._answer(worker, ref, False)

    def _answer(self, worker: Worker, ref: pb.AttemptRef, counts: bool) -> None:
        self._answered[worker.pool, worker.name, key_of(ref)] = counts
        if len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]
        self._ack(worker, ref, counts)

    def _ack(self, worker: Worker, ref: pb.AttemptRef, accepted: bool) -> None:
        failpoints.hit(_BEFORE_ACK)
        key = key_of(ref)
        worker.results.pop(key, None)
        worker.held.pop(key, None)
        self._tell(worker, pb.WorkResponse(ack=pb.Ack(ref=ref, accepted=accepted)))

    def decline(self, worker: Worker, ref: pb.AttemptRef, reason: str) -> None:
        """It did not start it: another worker may."""
        key = key_of(ref)
        worker.held.pop(key, None)
        log.info("lease_declined", worker=worker.name, turn_id=ref.turn_id, step=ref.step_key, reason=reason)
        job = self._jobs.get(key)
        if job is not None and job.worker is worker:
            worker.declined.add(key)
            self._queue(job, first=True)
        self._offer(worker.pool)

    def capacity(self, worker: Worker, capacity: int) -> None:
        """It has so many places now."""
        worker.capacity = capacity
        self._ask_again(worker)
        self._changed()

    def _ask_again(self, worker: Worker) -> None:
        """It may have places again: it is offered also what it gave back."""
        worker.declined.clear()
        self._offer(worker.pool)

    def disconnect(self, worker: Worker, send: Send) -> None:
        """The stream has ended. What the worker holds is lost if it does not come back within its lease."""
        if worker.send is send:
            worker.send = None
            self._changed()
            if (
                not worker.held
                and not worker.results
                and self._workers.get((worker.pool, worker.name)) is worker
            ):
                del self._workers[worker.pool, worker.name]
                if worker.silence is not None:
                    worker.silence.cancel()

    def leave(self, reason: str) -> None:
        """The process stops: every worker is asked to come back later. What they perform goes on.

        What waits for a worker ends as never started: the next owner could not know that.
        """
        self._leaving = True
        for waiting in self._waiting.values():
            for job in waiting:
                self._stay(job)
        for worker in self._workers.values():
            self._tell(worker, pb.WorkResponse(leaving=pb.Leaving(reason=reason)))

    def _tell(self, worker: Worker, response: pb.WorkResponse) -> None:
        if worker.send is not None:
            worker.send(response)

    # On behalf of other processes

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call it when workers come, go, or have other places than before."""
        self._changed = callback

    def places(self, pool: str) -> int:
        """Attempts that the workers which are connected here perform at one time."""
        return sum(w.capacity for w in self._direct() if w.pool == pool)

    @property
    def pools(self) -> set[str]:
        """Pools that workers which are connected here serve."""
        return {worker.pool for worker in self._direct()}

    def unclaimed(self) -> list[tuple[str, pb.AttemptRef]]:
        """What workers which are connected here hold, or have ended, and nobody here awaits: with its pool."""
        return [
            (worker.pool, ref)
            for worker in self._direct()
            for key, ref in (*worker.held.items(), *((key, r.ref) for key, r in worker.results.items()))
            if key not in self._jobs
        ]

    def _direct(self) -> list[Worker]:
        return [w for w in self._workers.values() if w.send is not None and not w.is_process]

    # What operators see

    def show(self, pool: str) -> tuple[list[admin.Worker], list[admin.Pool]]:
        """Workers that are connected here, and pools that have tools or attempts here; of one pool, if named."""
        workers = [
            admin.Worker(
                worker=worker.name,
                pool=worker.pool,
                capacity=worker.capacity,
                running=len(worker.held),
                program=worker.hello.program,
                schema_release=worker.hello.schema_release,
                since=worker.since,
            )
            for _, worker in sorted(self._workers.items())
            if worker.send is not None and pool in ("", worker.pool)
        ]
        pools: dict[str, admin.Pool] = {}
        for tool in self._tools().values():
            if tool.pool and pool in ("", tool.pool):
                pools.setdefault(tool.pool, admin.Pool(pool=tool.pool)).tools.append(tool.name)
        for job in self._jobs.values():
            name = job.attempt.pool
            if pool in ("", name):
                counts = pools.setdefault(name, admin.Pool(pool=name))
                if job.worker is None:
                    counts.waiting += 1
                else:
                    counts.running += 1
        return workers, [pools[name] for name in sorted(pools)]


def ref_of(attempt: Attempt) -> pb.AttemptRef:
    """The attempt as workers name it."""
    return pb.AttemptRef(
        session_id=attempt.context.session_id,
        turn_id=attempt.turn_id,
        step_key=attempt.step_key,
        attempt=attempt.attempt,
        epoch=attempt.epoch,
    )


def key_of(ref: pb.AttemptRef) -> Key:
    """What tells attempts apart: an epoch does not, for whoever takes a session over adopts its attempts."""
    return ref.turn_id, ref.step_key, ref.attempt


def _is_lost(result: AttemptResult) -> bool:
    """Another process says that the worker which had the attempt is gone."""
    return result.failure is not None and result.failure.reason == "REASON_STEP_OUTCOME_UNKNOWN"


def _unstarted(reason: str, message: str) -> AttemptResult:
    return AttemptResult(ev.STEP_STATUS_FAILED, failure=Failure(reason, message, retryable=True))
