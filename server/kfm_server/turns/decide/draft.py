"""A decision in the making: events recorded on a copy of the session, and the attempts to start after them."""

from dataclasses import dataclass, field

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kfm.catalogue.events import BY_CLASS
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types

from kfm_server.context import ExecutionContext
from kfm_server.models import DEFAULT_PERSONALITY, Models, ModelSpec, Personalities, Personality
from kfm_server.turns.fold import fold_session, fold_turn, put
from kfm_server.turns.planners.types import ToolCatalogue
from kfm_server.turns.state import Session, Turn
from kfm_server.turns.times import US, timestamp


@dataclass(frozen=True, slots=True)
class World:
    """What decisions may rely on beside the state: pinned at start-up, and recorded where it matters."""

    tools: ToolCatalogue
    tools_digest: str
    schema_release: str
    personalities: Personalities = field(
        default_factory=lambda: {DEFAULT_PERSONALITY.name: DEFAULT_PERSONALITY}
    )
    default_personality: str = DEFAULT_PERSONALITY.name
    models: Models = field(default_factory=dict[str, ModelSpec])
    max_queued_turns: int = 100
    max_reruns: int = 5
    start_window_us: int = 2 * US
    """An attempt must start this soon after its dispatch, or not at all. A takeover waits for that moment, and the
    step's timeout, before it settles or undoes what it finds: a frozen owner may wake until then."""
    pool_window_us: int = 60 * US
    """The same for a step of a worker pool: how long it waits for a worker. Then it backs off, and waits again."""

    def personality(self, asked: str) -> Personality | None:
        """The personality that a turn asks for by `name` or `name@version`, the default one if it asks for none.

        None if there is none such, or if another version of it is in force.
        """
        name, _, version = (asked or self.default_personality).partition("@")
        found = self.personalities.get(name)
        return found if found is not None and version in ("", found.version) else None


@dataclass(frozen=True, slots=True)
class Start:
    """An attempt to start, by its dispatch."""

    turn_id: str
    step_key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Stop:
    """An attempt to cancel; its result has been recorded already."""

    turn_id: str
    step_key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """An attempt of a worker pool whose owner is gone: its worker may have it still, and tell of it."""

    turn_id: str
    step_key: str
    attempt: int
    soon: bool = False
    """Its owner was gone for a lease before anybody took over: a worker that lives has had time to come back."""


@dataclass(slots=True)
class Draft:
    """Facts go in, events and effects come out. Discarded whole if its append is refused."""

    session: Session
    now_us: int
    world: World
    hold: bool = False
    """The process is stopping: results count, but nothing is dispatched; the next owner goes on from there."""
    events: list[envelope_pb2.Envelope] = field(default_factory=list[envelope_pb2.Envelope])
    starts: list[Start] = field(default_factory=list[Start])
    stops: list[Stop] = field(default_factory=list[Stop])
    withdrawals: list[Stop] = field(default_factory=list[Stop])
    """Attempts that are awaited, but need not be if no worker has them yet."""
    adopts: list[Adopt] = field(default_factory=list[Adopt])
    touched: dict[str, Turn] = field(default_factory=dict[str, Turn])
    """Every turn that an event was recorded for, as it stands after the last one."""
    _at: Timestamp = field(init=False)

    def __post_init__(self) -> None:
        self._at = timestamp(self.now_us)

    def turn(self, turn_id: str) -> Turn:
        """A turn of the session, which must hold it."""
        turn = self.session.turn(turn_id)
        assert turn is not None, turn_id
        return turn

    def submitted(self, context: ExecutionContext, turn_id: str, payload: ev.TurnEvent) -> None:
        """Record the first event of a new turn."""
        envelope = self._seal(
            context.tenant_id, context.trace_id, context.traceparent, turn_id, 1, payload, 0, ""
        )
        self.session = fold_session(self.session, envelope, payload)
        self.touched[turn_id] = self.turn(turn_id)

    def record(self, turn_id: str, payload: Message, attempt: int = 0) -> None:
        """Record one more event of a turn and fold it."""
        turn = self.turn(turn_id)
        envelope = self._seal(
            turn.tenant_id,
            turn.trace_id,
            turn.traceparent,
            turn_id,
            turn.sequence + 1,
            payload,
            attempt,
            _cause(turn, payload),
        )
        after = fold_turn(turn, envelope, payload)
        self.session = put(self.session, after, envelope)
        self.touched[turn_id] = after

    def _seal(
        self,
        tenant_id: str,
        trace_id: str,
        traceparent: str,
        turn_id: str,
        sequence: int,
        payload: Message,
        attempt: int,
        cause: str,
    ) -> envelope_pb2.Envelope:
        kind = BY_CLASS[type(payload)]
        envelope = envelope_pb2.Envelope(
            event_id=f"{turn_id}.{sequence}",
            type=kind.name,
            spec_version=kind.spec_version,
            timestamp=self._at,
            trace_id=trace_id,
            traceparent=traceparent,
            tenant_id=tenant_id,
            session_id=self.session.session_id,
            turn_id=turn_id,
            sequence=sequence,
            causation_id=cause,
            attempt=attempt,
            may_ignore=kind.may_ignore,
        )
        # Pack is slower and not deterministic: the URL comes from the catalogue (SCHEMA section 4).
        packed = envelope.payload
        packed.type_url = kind.url
        packed.value = payload.SerializeToString(deterministic=True)
        self.events.append(envelope)
        return envelope


def _cause(turn: Turn, payload: Message) -> str:
    """The event that this one follows from: a result from its dispatch, all else from the one before it."""
    if isinstance(payload, ev.StepResultEvent):
        step = turn.steps.get(payload.step_key)
        if step is not None and step.dispatch_event_id:
            return step.dispatch_event_id
    return turn.last_event_id


def error(reason: str, message: str, *, retryable: bool = False, **metadata: str) -> types.Error:
    """An error as events keep it."""
    return types.Error(reason=reason, message=message, retryable=retryable, metadata=metadata)
