"""What workers say on their streams, and what follows for the attempts that they have."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server.clock import CallLater, Clock
from kfm_server.ports.attempt_refs import Key, key_of
from kfm_server.ports.steps import GONE, AttemptResult
from kfm_server.runtime.pools.acknowledgements import Acknowledgements
from kfm_server.runtime.pools.job import Job
from kfm_server.runtime.pools.lease_queue import LeaseQueue
from kfm_server.runtime.pools.worker import Send, Told, Worker, Workers
from kfm_server.turns.times import timestamp

log = structlog.get_logger(__name__)


class Connections:
    """All streams of all workers that are connected here."""

    def __init__(
        self,
        workers: Workers,
        jobs: dict[Key, Job],
        queue: LeaseQueue,
        acknowledgements: Acknowledgements,
        clock: Clock,
        call_later: CallLater,
        lease_seconds: float,
    ) -> None:
        """`lease_seconds`: a worker that is silent for so long is taken for dead."""
        self.lease_seconds = lease_seconds
        self.on_change: Callable[[], None] = lambda: None
        """Called when workers come, go, or have other places than before."""
        self._workers = workers
        self._jobs = jobs
        self._queue = queue
        self._acknowledgements = acknowledgements
        self._clock = clock
        self._call_later = call_later

    def now_us(self) -> int:
        """The clock by which latest starts are told, in microseconds since the epoch."""
        return self._clock.now_us()

    def connect(self, hello: pb.Hello, send: Send, *, is_process: bool = False) -> Worker:
        """A stream of a worker has begun. One of the same name and pool goes on as that worker."""
        name = (hello.pool, hello.worker)
        worker = self._workers.get(name)
        if worker is None:
            worker = self._workers[name] = Worker(hello, timestamp(self._clock.now_us()))
        else:
            worker.send_away("another stream of this worker has begun")
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
                self._queue.add(job, first=True)  # the lease was lost on its way
            else:
                self._miss(job, worker)
        self._holds(worker, told.items())
        self._queue.offer(worker.pool)
        self.on_change()
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

    def heard(self, worker: Worker) -> None:
        """It lives: whatever it says tells so."""
        if worker.silence is not None:
            worker.silence.cancel()
        worker.silence = self._call_later(self.lease_seconds, lambda: self._silent(worker))

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
            recorded=lambda counts: self._acknowledgements.give(worker, ref, counts),
        )
        told = Told(ref, result)
        job = self._jobs.get(key)
        answer = self._acknowledgements.given(worker, key)
        if answer is not None:
            self._acknowledgements.tell(worker, ref, answer)  # it was lost
        elif job is not None and not job.queued and _is_of(job, worker):
            self._conclude(job, worker, told)
        else:
            # The session may not be loaded yet: whoever loads it asks for the attempt.
            self._acknowledgements.keep(worker, told)
        self._ask_again(worker)

    def decline(self, worker: Worker, ref: pb.AttemptRef, reason: str) -> None:
        """It did not start it: another worker may."""
        key = key_of(ref)
        worker.held.pop(key, None)
        log.info("lease_declined", worker=worker.name, turn_id=ref.turn_id, step=ref.step_key, reason=reason)
        job = self._jobs.get(key)
        if job is not None and job.worker is worker:
            worker.declined.add(key)
            self._queue.add(job, first=True)
        self._queue.offer(worker.pool)

    def capacity(self, worker: Worker, capacity: int) -> None:
        """It has so many places now."""
        worker.capacity = capacity
        self._ask_again(worker)
        self.on_change()

    def disconnect(self, worker: Worker, send: Send) -> None:
        """The stream has ended. What the worker holds is lost if it does not come back within its lease."""
        if worker.send is send:
            worker.send = None
            self.on_change()
            if (
                not worker.held
                and not worker.results
                and self._workers.get((worker.pool, worker.name)) is worker
            ):
                del self._workers[worker.pool, worker.name]
                if worker.silence is not None:
                    worker.silence.cancel()

    def attach(self, job: Job, worker: Worker) -> None:
        """The worker has it: wait for its result, or take the one that is there."""
        job.worker, job.seen = worker, True
        job.wait_for_end(self._clock.now_us())
        told = worker.results.pop(job.key, None)
        if told is not None:
            self._conclude(job, worker, told)

    def _conclude(self, job: Job, worker: Worker, told: Told) -> None:
        if worker.is_process and _is_lost(told.result):
            failure = told.result.failure
            job.lose(0 if failure is not None and GONE in failure.metadata else None)
            self._acknowledgements.tell(worker, told.ref, True)
        else:
            job.end(told.result)

    def _holds(self, worker: Worker, refs: Iterable[tuple[Key, pb.AttemptRef]]) -> None:
        for key, ref in refs:
            if self._acknowledgements.given(worker, key) is not None:
                continue  # it was told so in the meantime
            worker.held[key] = ref
            job = self._jobs.get(key)
            if job is None or job.attempt.pool != worker.pool:
                continue
            if job.worker is worker:
                job.seen = True
                continue
            if job.queued:
                self._queue.remove(job)
                job.gone_us = job.attempt.deadline_us
                self.attach(job, worker)
            elif job.worker is None or job.worker.is_process or worker.is_process:
                self.attach(job, worker)  # it was not known, or its worker has moved to another process

    def _miss(self, job: Job, worker: Worker) -> None:
        """The worker had it, and says that it does not hold it: it performs it no more.

        Another process says so too when it has begun anew: then it may tell of its worker's attempt again.
        """
        if not worker.is_process:
            job.lose(0)
            return
        job.worker = None
        job.after(self.lease_seconds, job.lose)

    def _silent(self, worker: Worker) -> None:
        """For a whole lease: it is taken for dead, until it speaks again."""
        log.warning("worker_silent", worker=worker.name, pool=worker.pool, held=len(worker.held))
        del self._workers[worker.pool, worker.name]
        worker.send_away("no heartbeat came for a whole lease")
        worker.send = None
        for key in worker.held:
            job = self._jobs.get(key)
            if job is not None and job.worker is worker:
                job.lose()

    def _ask_again(self, worker: Worker) -> None:
        """It may have places again: it is offered also what it gave back."""
        worker.declined.clear()
        self._queue.offer(worker.pool)


def _is_of(job: Job, worker: Worker) -> bool:
    """The worker's result counts: it has the attempt, or nobody told yet who has."""
    return job.worker is worker or (job.worker is None and job.attempt.pool == worker.pool)


def _is_lost(result: AttemptResult) -> bool:
    """Another process says that the worker which had the attempt is gone."""
    return result.failure is not None and result.failure.reason == "REASON_STEP_OUTCOME_UNKNOWN"
