"""An attempt that somebody here awaits, and how it ends."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types

from kfm_server import metrics
from kfm_server.clock import CallLater, Timer
from kfm_server.ports.attempt_refs import Key, ref_of
from kfm_server.ports.steps import Attempt, AttemptLost, AttemptResult, Failure, Progress
from kfm_server.runtime.pools.worker import Worker

log = structlog.get_logger(__name__)

_LATE_SECONDS: Final = 2.0
"""How long after its deadline an attempt's result is waited for: the worker ends it by itself."""
HARMLESS = (types.EFFECT_CONTRACT_PURE, types.EFFECT_CONTRACT_IDEMPOTENT)
"""Effects that may happen twice."""


@dataclass(eq=False, slots=True)
class Job:
    """One attempt; it has one timer at a time."""

    attempt: Attempt
    progress: Progress
    ended: asyncio.Future[AttemptResult]
    call_later: CallLater
    worker: Worker | None = None
    guest: bool = False
    """Of another process, which is the owner: for workers that are connected here, and for no third process."""
    since_us: int = 0
    """When it began to wait for a worker, first of all."""
    queued: bool = False
    seen: bool = False
    """The worker told of it: the lease has reached it."""
    gone_us: int = 0
    """When it has surely ended, should its worker be lost."""
    timer: Timer | None = None

    @property
    def key(self) -> Key:
        """The attempt."""
        return self.attempt.turn_id, self.attempt.step_key, self.attempt.attempt

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Act then, instead of whatever was to happen before."""
        self.rest()
        self.timer = self.call_later(seconds, act)

    def rest(self) -> None:
        """Nothing is to happen any more."""
        if self.timer is not None:
            self.timer.cancel()

    def wait_for_end(self, now_us: int) -> None:
        """Give its worker until a little after `gone_us`."""
        self.after(max(0.0, (self.gone_us - now_us) / 1e6) + _LATE_SECONDS, self._give_up)

    def end(self, result: AttemptResult) -> None:
        """It came to this; what comes later changes nothing."""
        if not self.ended.done():
            self.ended.set_result(result)

    def end_unstarted(self, reason: str, message: str) -> None:
        """No worker has begun it: it may be tried again."""
        self.end(AttemptResult(ev.STEP_STATUS_FAILED, failure=Failure(reason, message, retryable=True)))

    def _give_up(self) -> None:
        """Its worker lives, and has not ended it by its deadline."""
        if self.worker is not None:
            self.worker.stop(ref_of(self.attempt), "deadline")
        status = ev.STEP_STATUS_FAILED if self.attempt.effect in HARMLESS else ev.STEP_STATUS_UNKNOWN
        late = Failure(
            "REASON_STEP_TIMEOUT", "The worker did not end the step by its deadline.", retryable=True
        )
        self.end(AttemptResult(status, failure=late))

    def lose(self, gone_us: int | None = None) -> None:
        """Its worker is gone. `gone_us`: when it has surely ended, 0 being already; if not told, by its latest end."""
        metrics.POOL_LOST.labels(self.attempt.pool).inc()
        log.warning(
            "attempt_lost", turn_id=self.attempt.turn_id, step=self.attempt.step_key, attempt=self.attempt.attempt,
            worker=self.worker.name if self.worker else "",
        )  # fmt: skip
        if not self.ended.done():
            late = self.gone_us + int(
                _LATE_SECONDS * 1e6
            )  # by the worker's clock, which began at its arrival
            self.ended.set_exception(AttemptLost(late if gone_us is None else gone_us))
