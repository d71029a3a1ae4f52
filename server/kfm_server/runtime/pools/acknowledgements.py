"""What workers are told of their results: recorded, or refused as late."""

from collections.abc import Callable
from typing import Final

import structlog
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server import failpoints, metrics
from kfm_server.clock import CallLater
from kfm_server.ports.attempt_refs import MOST_HELD, Key, key_of
from kfm_server.runtime.pools.worker import Told, Worker, Workers

log = structlog.get_logger(__name__)

_KEPT_BYTES: Final = 64 << 20
"""Of the results that are kept, for each worker. What is not kept the worker tells again."""
_REMEMBERED: Final = 10_000
"""Results that were acknowledged last: told again, for want of that, they are acknowledged again."""
_BEFORE_ACK = failpoints.declare("pool.ack.before")


class Acknowledgements:
    """Those that were given, and the results that wait for one because nobody awaits their attempt yet."""

    def __init__(
        self, workers: Workers, owns: Callable[[str], bool], call_later: CallLater, lease_seconds: float
    ) -> None:
        """`owns`: as of WorkerPools."""
        self._workers = workers
        self._owns = owns
        self._call_later = call_later
        self._lease_seconds = lease_seconds
        self._given: dict[tuple[str, str, Key], bool] = {}

    def given(self, worker: Worker, key: Key) -> bool | None:
        """What the worker was told of this result; None if nothing yet, or long ago."""
        return self._given.get((worker.pool, worker.name, key))

    def keep(self, worker: Worker, told: Told) -> None:
        """Keep it until somebody asks for it. Who owns its session refuses it as late when nobody did for a lease."""
        key, kept = key_of(told.ref), worker.results
        size = len(told.result.output_json) + sum(len(other.result.output_json) for other in kept.values())
        if key not in kept and len(kept) < MOST_HELD and size <= _KEPT_BYTES:
            kept[key] = told
            self._call_later(self._lease_seconds, lambda: self._late(worker, told))

    def _late(self, worker: Worker, told: Told) -> None:
        ref, key = told.ref, key_of(told.ref)
        if worker.results.get(key) is not told:
            return
        if not self._owns(ref.session_id):
            if self._workers.get((worker.pool, worker.name)) is worker:  # else it tells on its next stream
                self._call_later(self._lease_seconds, lambda: self._late(worker, told))
            return
        del worker.results[key]
        metrics.LATE_RESULTS.inc()
        log.warning("late_result_refused", turn_id=ref.turn_id, step=ref.step_key, worker=worker.name)
        self.give(worker, ref, False)

    def give(self, worker: Worker, ref: pb.AttemptRef, accepted: bool) -> None:
        """Acknowledge, and remember it."""
        self._given[worker.pool, worker.name, key_of(ref)] = accepted
        if len(self._given) > _REMEMBERED:
            del self._given[next(iter(self._given))]
        self.tell(worker, ref, accepted)

    def tell(self, worker: Worker, ref: pb.AttemptRef, accepted: bool) -> None:
        """Acknowledge: the worker may forget the attempt, and so does the hub."""
        failpoints.hit(_BEFORE_ACK)
        key = key_of(ref)
        worker.results.pop(key, None)
        worker.held.pop(key, None)
        worker.tell(pb.WorkResponse(ack=pb.Ack(ref=ref, accepted=accepted)))
