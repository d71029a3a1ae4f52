"""Where the runtime and the steps meet: one attempt in, one result out."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types

from kfm_server.context import ExecutionContext
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
    recipe: Recipe | None = None
    """What the prompt is made of, for model and plan steps."""


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


DeltaKind = Literal["progress", "text", "reasoning", "tool_arguments"]


class Progress(Protocol):
    """Tells watchers of an attempt, at once and without a promise that it reaches them."""

    def __call__(self, text: str, kind: DeltaKind = "progress") -> None:
        """A piece of output, or how far the attempt is."""
        ...


class StepRunner(Protocol):
    """Performs one attempt. It never retries, never appends, and raises nothing but cancellation."""

    async def run(self, attempt: Attempt, progress: Progress, connection: Any = None) -> AttemptResult:
        """Perform the attempt within its deadline. `connection` is lent to TRANSACTIONAL tools only."""
        ...
