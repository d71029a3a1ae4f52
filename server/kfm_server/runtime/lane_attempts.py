"""The attempts of a lane that are under way, each a task that ends with a fact for the lane."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.ports.steps import STOPPED, Attempt, AttemptLost, AttemptResult, DeltaKind, Progress
from kfm_server.runtime.attempts import not_started, result_event
from kfm_server.runtime.facts import Ended, Fact, Lost
from kfm_server.runtime.lane_parts import LaneParts, Owner

STOP_SECONDS = 2.0
"""How long attempts that were cancelled are waited for, until they count as running still."""

_Perform = Callable[[Attempt, Progress], Coroutine[Any, Any, AttemptResult]]


class LaneAttempts:
    """Those of one session, its TRANSACTIONAL ones apart: the lane performs them itself."""

    def __init__(
        self, owner: Owner, parts: LaneParts, post: Callable[[Fact], None], left: Callable[[], None]
    ) -> None:
        """`post` takes what an attempt came to; `left` is called when one is over, also without a word."""
        self.parts = parts
        self._owner = owner
        self._post = post
        self._left = left
        self._tasks: dict[tuple[str, str, int], asyncio.Task[None]] = {}

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """One for each."""
        return list(self._tasks.values())

    def start(self, attempt: Attempt) -> None:
        """Have it performed."""
        self._attend(attempt, self.parts.runner.run)

    def adopt(self, attempt: Attempt, *, soon: bool) -> None:
        """Go on with what another owner handed to a worker, as PoolRunner.adopt."""
        self._attend(attempt, partial(self.parts.runner.adopt, soon=soon))

    def stop(self, turn_id: str, step_key: str, attempt: int) -> None:
        """Take it back, if it is under way."""
        task = self._tasks.get((turn_id, step_key, attempt))
        if task is not None:
            _cancel(task, STOPPED)

    def let_go(self, which: Callable[[str, str], bool] = lambda turn_id, step_key: True) -> None:
        """Await these no more, by turn and step: what a worker performs goes on."""
        for (turn_id, step_key, _), task in self._tasks.items():
            if which(turn_id, step_key):
                _cancel(task)

    def progress(self, attempt: Attempt) -> Progress:
        """By which the attempt tells watchers how far it is."""
        index = 0

        def tell(text: str, kind: DeltaKind = "progress") -> None:
            nonlocal index
            delta = api.StepDelta(step_key=attempt.step_key, attempt=attempt.attempt, index=index)
            setattr(delta, kind, text)
            index += 1
            self.parts.broadcaster.delta(attempt.turn_id, delta, self._owner.epoch)

        return tell

    def _attend(self, attempt: Attempt, perform: _Perform) -> None:
        key = (attempt.turn_id, attempt.step_key, attempt.attempt)
        task = self.parts.spawn(self._perform(attempt, perform), f"attempt {attempt.key}")
        self._tasks[key] = task
        task.add_done_callback(partial(self._over, key))

    def _over(self, key: tuple[str, str, int], attempt: asyncio.Task[None]) -> None:
        """An attempt is over, also one that was cancelled before it began."""
        self._tasks.pop(key, None)
        self._left()

    async def _perform(self, attempt: Attempt, perform: _Perform) -> None:
        recorded = None
        runs_here = not attempt.pool and attempt.effect != types.EFFECT_CONTRACT_PURE
        if runs_here and not self._owner.may_start():
            result = not_started(attempt.step_key)
        else:
            try:
                ended = await perform(attempt, self.progress(attempt))
            except AttemptLost as lost:
                self._post(Lost(attempt.turn_id, attempt.step_key, attempt.attempt, lost.gone_us))
                return
            result, recorded = result_event(attempt.step_key, ended), ended.recorded
        result.compensation = attempt.compensation
        self._post(Ended(attempt.turn_id, attempt.attempt, result, recorded))


async def stopped(tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Wait until tasks that were cancelled have ended, for at most STOP_SECONDS; those that have not."""
    tasks = set(tasks)
    return (await asyncio.wait(tasks, timeout=STOP_SECONDS))[1] if tasks else tasks


def _cancel(attempt: asyncio.Task[Any], why: str | None = None) -> None:
    """Cancel it, but once: another time would cut short how its tool winds up."""
    if not attempt.cancelling():
        attempt.cancel(why)
