"""The hub of worker pools: hands attempts to the workers that are connected here, and waits for what they come to.

One per process. An attempt waits in its pool for a worker with a place (`lease_queue`), is leased to it, and ends with
the worker's result (`connections`), or is lost: its worker was silent for a lease, or came back without it. A stream
that breaks loses nothing: the worker tells on its next one what it holds. An attempt is found again under the same
reference after a takeover.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from kfm.admin.v1 import admin_service_pb2 as admin
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server.clock import CallLater, Clock, on_the_loop
from kfm_server.ports.attempt_refs import Key, ref_of
from kfm_server.ports.steps import STOPPED, Attempt, AttemptResult, Progress
from kfm_server.runtime.pools.acknowledgements import Acknowledgements
from kfm_server.runtime.pools.connections import Connections
from kfm_server.runtime.pools.job import HARMLESS, Job
from kfm_server.runtime.pools.lease_queue import START_SECONDS, LeaseQueue
from kfm_server.runtime.pools.listing import pools_of, workers_of
from kfm_server.runtime.pools.worker import Worker, Workers
from kfm_server.tool_catalogue import ToolCatalogue
from kfm_server.turns.bodies import is_large
from kfm_server.turns.times import timestamp

LEASE_SECONDS: Final = 3.0
"""A worker that is silent for so long is taken for dead, and what it held is lost."""

Run = Callable[[Attempt, Progress, Any], Coroutine[Any, Any, AttemptResult]]


class WorkerPools:
    """The StepRunner of a process: attempts of the pool `local` go to `local`, others to workers.

    `connections` hears what workers say.
    """

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
        self._lease_seconds = lease_seconds
        self._local = local
        self._clock = clock
        self._tools = tools
        self._call_later = call_later
        self._over_bus = over_bus
        self._bus = Worker(pb.Hello(worker="bus"), timestamp(clock.now_us()))
        self._jobs: dict[Key, Job] = {}
        self._workers: Workers = {}
        self._queue = LeaseQueue(self._workers, clock, may_lease)
        acknowledgements = Acknowledgements(self._workers, owns, call_later, lease_seconds)
        self.connections = Connections(
            self._workers, self._jobs, self._queue, acknowledgements, clock, call_later, lease_seconds
        )

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
            job.after(self._lease_seconds / 2 if soon else self._lease_seconds, job.lose)
        else:
            self.connections.attach(job, holder)
        return await self._outcome(job)

    def withdraw(self, turn_id: str, step_key: str, attempt: int) -> None:
        """As the port says."""
        job = self._jobs.get((turn_id, step_key, attempt))
        if job is not None and job.queued:
            job.end_unstarted("REASON_POOL_UNAVAILABLE", "the turn ended before a worker took the step")

    def bus_result(self, ref: pb.AttemptRef, result: AttemptResult) -> None:
        """A worker says on the broker how an attempt ended, to the owner of its partition."""
        self.connections.result(self._bus, ref, result)

    def leave(self, reason: str) -> None:
        """The process stops: every worker is asked to come back later. What they perform goes on.

        What waits for a worker ends as never started: the next owner could not know that.
        """
        self._queue.close()
        for worker in self._workers.values():
            worker.send_away(reason)

    def show(self, pool: str) -> tuple[list[admin.Worker], list[admin.Pool]]:
        """Workers that are connected here, and pools that have tools or attempts here; of one pool, if named."""
        return workers_of(self._workers, pool), pools_of(self._jobs.values(), self._tools(), pool)

    async def _lease(self, attempt: Attempt, progress: Progress, *, guest: bool = False) -> AttemptResult:
        job = self._enter(attempt, progress)
        job.guest = guest
        if self._goes_over_bus(attempt):
            job.gone_us = attempt.deadline_us
            self.connections.attach(job, self._bus)
        else:
            self._queue.add(job)
            self._queue.offer(attempt.pool)
        return await self._outcome(job)

    def _goes_over_bus(self, attempt: Attempt) -> bool:
        """Its dispatch is all that a worker needs, and a redelivery does no harm."""
        fits = attempt.effect in HARMLESS and not is_large(attempt.arguments_json)
        return fits and attempt.pool in self._over_bus

    def _enter(self, attempt: Attempt, progress: Progress) -> Job:
        job = Job(attempt, progress, asyncio.get_running_loop().create_future(), self._call_later)
        self._jobs[job.key] = job
        return job

    async def _outcome(self, job: Job) -> AttemptResult:
        try:
            return await job.ended
        except asyncio.CancelledError as cancelled:
            if STOPPED in cancelled.args and job.worker is not None:
                job.worker.stop(ref_of(job.attempt), STOPPED)
            raise
        finally:
            job.rest()
            if job.queued:
                self._queue.remove(job)
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]

    # On behalf of other processes

    def run_guest(self, attempt: Attempt, progress: Progress) -> Coroutine[Any, Any, AttemptResult]:
        """Perform an attempt of a session that another process owns, by a worker that is connected here."""
        return self._lease(attempt, progress, guest=True)

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
