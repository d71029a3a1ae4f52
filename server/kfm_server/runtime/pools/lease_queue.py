"""What waits for a worker, and its lease to one."""

from collections import deque
from collections.abc import Callable
from typing import Final

from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server import failpoints, metrics
from kfm_server.clock import Clock
from kfm_server.ports.attempt_refs import ref_of
from kfm_server.runtime.pools.job import Job
from kfm_server.runtime.pools.worker import Worker, Workers
from kfm_server.turns.times import duration, timestamp

START_SECONDS: Final = 2.0
"""How long a worker may take to start what it was leased."""
_BEFORE_LEASE = failpoints.declare("pool.lease.before")
_AFTER_LEASE = failpoints.declare("pool.lease.after")


class LeaseQueue:
    """A queue for each pool."""

    def __init__(self, workers: Workers, clock: Clock, may_lease: Callable[[str], bool]) -> None:
        """`may_lease`: the partition of a session is surely ours."""
        self._workers = workers
        self._clock = clock
        self._may_lease = may_lease
        self._waiting: dict[str, deque[Job]] = {}
        self._closed = False

    def add(self, job: Job, *, first: bool = False) -> None:
        """Let it wait for a worker, until its latest start."""
        if job.attempt.pool not in self._waiting:
            self._begin(job.attempt.pool)
        waiting = self._waiting[job.attempt.pool]
        (waiting.appendleft if first else waiting.append)(job)
        job.since_us = job.since_us or self._clock.now_us()
        job.queued, job.worker, job.seen = True, None, False
        late = max(0.0, (job.attempt.start_by_us - self._clock.now_us()) / 1e6)
        job.after(late, lambda: self._not_taken(job))
        if self._closed:
            _stay(job)

    def _begin(self, pool: str) -> None:
        """A pool's queue, empty; /metrics tells of it from now on: what workers are scaled by."""
        waiting = self._waiting[pool] = deque()

        def oldest() -> float:
            since = min((job.since_us for job in waiting), default=None)
            return 0.0 if since is None else max(0.0, (self._clock.now_us() - since) / 1e6)

        metrics.POOL_WAITING.labels(pool).set_function(lambda: len(waiting))
        metrics.POOL_OLDEST.labels(pool).set_function(oldest)

    def remove(self, job: Job) -> None:
        """It waits no more."""
        self._waiting[job.attempt.pool].remove(job)
        job.queued = False

    def close(self) -> None:
        """The process stops: what waits ends as never started, as does what comes; the next owner could not know that."""
        self._closed = True
        for waiting in self._waiting.values():
            for job in waiting:
                _stay(job)

    def offer(self, pool: str) -> None:
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
            self.remove(job)
            if job.guest or self._may_lease(job.attempt.context.session_id):
                self._hand_over(job, max(free, key=lambda w: w.capacity - len(w.held)))
            else:
                job.end_unstarted("REASON_FENCED", "the lease was not sure enough to start an effect")

    def _hand_over(self, job: Job, worker: Worker) -> None:
        attempt, now = job.attempt, self._clock.now_us()
        ref = ref_of(attempt)
        start_by = min(attempt.start_by_us, now + int(START_SECONDS * 1e6))
        timeout = max(0, attempt.deadline_us - attempt.start_by_us)
        failpoints.hit(_BEFORE_LEASE)
        worker.held[job.key] = ref
        job.worker = worker
        job.gone_us = start_by + timeout
        job.wait_for_end(now)
        worker.tell(
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
            )
        )
        failpoints.hit(_AFTER_LEASE)

    def _not_taken(self, job: Job) -> None:
        pool = job.attempt.pool
        served = sum(1 for w in self._workers.values() if w.pool == pool and w.send)
        why = f"all {served} workers are busy" if served else "none is connected"
        job.end_unstarted("REASON_POOL_UNAVAILABLE", f"no worker of pool {pool!r} took the step: {why}")


def _stay(job: Job) -> None:
    job.end_unstarted("REASON_POOL_UNAVAILABLE", "the server stopped before a worker took the step")
