"""Where the runtime and the steps meet: one attempt in, one result out."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types

from kfm_server.context import ExecutionContext
from kfm_server.models import Personality
from kfm_server.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one step, as its dispatch recorded it. Times are microseconds since the epoch."""

    context: ExecutionContext
    turn_id: str
    step_key: str
    attempt: int
    kind: types.StepKind
    tool: str
    arguments_json: str
    effect: types.EffectContract
    key: str
    epoch: int
    start_by_us: int
    deadline_us: int
    compensation: bool = False
    pool: str = ""
    """Worker pool that performs it; empty: this process."""
    recipe: Recipe | None = None
    """What the prompt is made of, for model and plan steps."""
    personality: Personality | None = None
    """The one that the turn keeps; None where it keeps none: it has no pack."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: a name of kfm.error.v1.Reason, a sentence, and whether another may succeed."""

    reason: str
    message: str
    retryable: bool = False
    metadata: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What is kept of a model call: who answered, under which id, what it used, and a digest of what was sent."""

    model: str = ""
    provider_request_id: str = ""
    prompt_digest: str = ""
    usage: types.Usage | None = None


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended. `output_json` is canonical JSON, empty unless it succeeded."""

    status: events.StepStatus
    output_json: str = ""
    failure: Failure | None = None
    run_time_us: int = 0
    call: CallRecord | None = None
    worker: str = ""
    """Who performed it, if not this process."""
    recorded: Callable[[bool], None] | None = None
    """Called once the result is durable (True), or was refused as late (False)."""


DeltaKind = Literal["progress", "text", "reasoning", "tool_arguments"]


class Progress(Protocol):
    """Tells watchers of an attempt, at once and without a promise that it reaches them."""

    def __call__(self, text: str, kind: DeltaKind = "progress") -> None:
        """A piece of output, or how far the attempt is."""
        ...


STOPPED = "stopped"
"""The message of a cancellation that takes the attempt back: a worker is told to stop. Without it the attempt is
only let go, and another owner may take it up."""


GONE = "gone"
"""In the metadata of a lost attempt's failure, as one process tells it to another: it has surely ended."""


class AttemptLost(Exception):
    """Whoever performed the attempt is gone, and nobody knows how far it came. By `gone_us` it has surely ended."""

    def __init__(self, gone_us: int) -> None:
        super().__init__(f"lost; surely ended by {gone_us}")
        self.gone_us = gone_us


class StepRunner(Protocol):
    """Performs one attempt. It never retries and never appends."""

    def run(
        self, attempt: Attempt, progress: Progress, connection: Any = None
    ) -> Coroutine[Any, Any, AttemptResult]:
        """Perform the attempt within its deadline. `connection` is lent to TRANSACTIONAL tools only.

        Raises AttemptLost, on a worker pool, and nothing else but cancellation.
        """
        ...


class PoolRunner(StepRunner, Protocol):
    """A StepRunner that knows worker pools."""

    def withdraw(self, turn_id: str, step_key: str, attempt: int) -> None:
        """Nobody wants it any more: if it still waits for a worker, it ends as never started. What runs goes on."""
        ...

    async def adopt(self, attempt: Attempt, progress: Progress, *, soon: bool = False) -> AttemptResult:
        """Go on with an attempt that another process handed to a worker, once that worker tells of it.

        Raises AttemptLost if none does within a lease, or half of one if it has to tell `soon`; or as `run`.
        """
        ...
