"""What is known of a session: frozen values folded from events. Nothing here reads a clock or a disk."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

Phase = api.TurnState
StepPhase = api.StepState

ENDED_STEP = frozenset(
    {
        api.STEP_STATE_SUCCEEDED,
        api.STEP_STATE_FAILED,
        api.STEP_STATE_CANCELLED,
        api.STEP_STATE_SKIPPED,
    }
)

NEVER_STARTED = frozenset({"REASON_FENCED", "REASON_POOL_UNAVAILABLE"})
"""Why an attempt ended before anything of it began: that costs no try, and may be repeated under every contract."""
MODEL_KINDS = frozenset({types.STEP_KIND_MODEL, types.STEP_KIND_PLAN})
"""Steps that are calls of a model."""

_State = TypeVar("_State")


def replace(state: _State, **changes: Any) -> _State:
    """A copy with other values, as dataclasses.replace, at an eighth of its cost: a turn makes some forty.

    For classes without slots: the values of one are copied as a dict.
    """
    values = state.__dict__ | changes
    assert len(values) == len(state.__dict__), changes
    copy = object.__new__(type(state))
    object.__setattr__(copy, "__dict__", values)
    return copy


@dataclass(frozen=True)
class AttemptRecord:
    """One try of a step, as its history shows it. Times are microseconds since the epoch."""

    attempt: int
    dispatched_us: int
    rerun: bool = False
    compensation: bool = False
    ended_us: int = 0
    status: ev.StepStatus = ev.STEP_STATUS_UNSPECIFIED
    error: types.Error | None = None
    usage: types.Usage | None = None
    model: str = ""
    provider_request_id: str = ""
    called: bool = True
    """False once its result says that its tool or model was not called at all."""


@dataclass(frozen=True)
class Step:
    """One step of the plan and all that happened to it."""

    definition: types.PlanStep
    index: int
    phase: StepPhase = api.STEP_STATE_PENDING
    attempt: int = 0
    """Number of the last attempt; a result for another one is late."""
    tries: int = 0
    """Attempts that count against the retry budget: no reruns, no compensations, none that never started."""
    reruns: int = 0
    """Starts repeated because a process died, since the last result."""
    compensations: int = 0
    compensate: bool = False
    """An attempt ended without a known good end: undo it before anything else."""
    orphaned: bool = False
    """The process that ran the attempt is gone, or may be frozen; wake_us says when it surely gave up."""
    dispatch: ev.StepEvent | None = None
    dispatch_event_id: str = ""
    wake_us: int | None = None
    output_json: str = ""
    error: types.Error | None = None
    feedback: str = ""
    """What was wrong with the reply before, for a model step that tries again."""
    history: tuple[AttemptRecord, ...] = ()

    @property
    def to_undo(self) -> bool:
        """Its attempt is to be undone, and nothing undoes it at this moment."""
        return self.compensate and self.phase in (api.STEP_STATE_FAILED, api.STEP_STATE_BACKING_OFF)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a turn does not go on by itself."""

    reason: ev.WaitReason
    step_key: str
    until_us: int | None
    since_us: int


@dataclass(frozen=True)
class Turn:
    """One turn. `ending` is how it will end once nothing runs any more."""

    turn_id: str
    session_id: str
    tenant_id: str
    trace_id: str
    traceparent: str
    request: ev.TurnEvent
    submitted_us: int
    deadline_us: int
    sequence: int = 1
    last_event_id: str = ""
    phase: Phase = api.TURN_STATE_QUEUED
    plan_id: str = ""
    planner: str = ""
    plans: int = 0
    """Plan events so far."""
    repairs: int = 0
    """Plans that replaced a bad one, since the last good one."""
    asks: bool = False
    """Some of its steps are calls of a model."""
    personality_json: str = ""
    refusal: types.Error | None = None
    steps: dict[str, Step] = field(default_factory=dict[str, Step])
    paused: bool = False
    ending: ev.Outcome = ev.OUTCOME_UNSPECIFIED
    dropped: bool = False
    waiting: Waiting | None = None
    outcome: ev.Outcome = ev.OUTCOME_UNSPECIFIED
    output: tuple[types.Part, ...] = ()
    error: types.Error | None = None
    finished_us: int = 0
    effects_done: tuple[str, ...] = ()

    @property
    def last_step(self) -> Step | None:
        """The step that was planned last; in a turn that a model plans, its reply decides what follows."""
        return next(reversed(self.steps.values()), None)

    @property
    def root_turn_id(self) -> str:
        """The turn whose id stands in the keys of tools."""
        return self.request.root_turn_id or self.turn_id


def is_over(step: Step) -> bool:
    """Nothing more is to be done for the step, or about it."""
    return step.phase in ENDED_STEP and not step.compensate


_NONE = frozenset[str]()


def told_of(turn: Turn) -> frozenset[str]:
    """The steps of which a model is told how they ended: a failure is then an answer like another."""
    if not turn.asks:
        return _NONE
    return frozenset(
        key
        for step in turn.steps.values()
        if step.definition.kind in MODEL_KINDS
        for key in step.definition.depends_on
    )


def outlived(turn: Turn, step: Step, told: frozenset[str]) -> bool:
    """Whether the step came to nothing and the turn went on: a model is told of it, or another plan stood in."""
    if step.phase == api.STEP_STATE_FAILED and step.definition.kind in MODEL_KINDS:
        return step is not turn.last_step
    left_out = step.phase == api.STEP_STATE_SKIPPED and not step.attempt and step.error is not None
    return (left_out or step.phase == api.STEP_STATE_FAILED) and step.definition.key in told


def fatal(turn: Turn, step: Step, told: frozenset[str]) -> bool:
    """Whether the step's failure is the turn's. `told` is `told_of(turn)`, asked for once."""
    return step.phase == api.STEP_STATE_FAILED and not step.compensate and not outlived(turn, step, told)


@dataclass(frozen=True)
class Session:
    """The unit of decision: the turn that runs, and those that wait for it."""

    session_id: str
    tenant_id: str = ""
    active: Turn | None = None
    queue: tuple[Turn, ...] = ()
    recorded_us: int = 0
    """The latest time of its events: no later one may be earlier."""

    def turn(self, turn_id: str) -> Turn | None:
        """A turn of the session that has not finished."""
        if self.active is not None and self.active.turn_id == turn_id:
            return self.active
        return next((t for t in self.queue if t.turn_id == turn_id), None)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return self.active is None and not self.queue
