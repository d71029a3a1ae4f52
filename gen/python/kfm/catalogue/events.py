"""The event catalogue: type, class, topic and version of every event. Generated; never edited."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message

from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import system_events_pb2
from kfm.event.v1 import turn_events_pb2
from kfm.catalogue.errors import EventTypeUnknown, EventUndecodable

SCHEMA_RELEASE = "1.4.0"
URL_PREFIX = "type.googleapis.com/"


@dataclass(frozen=True, slots=True)
class EventType:
    """One event type. `name` is the envelope's type, `url` the payload's, `topic` the wire name of its topic."""

    name: str
    full_name: str
    url: str
    topic: str
    spec_version: str
    may_ignore: bool
    cls: type[Message]


TOPICS: tuple[str, ...] = (
    "agent.turns.requests",
    "agent.turns.events",
    "agent.plans",
    "agent.steps.requests",
    "agent.steps.results",
    "agent.audit",
    "agent.dead_letters",
    "agent.system",
)

EVENT_TYPES: dict[str, EventType] = {
    "AuditEvent.v1": EventType("AuditEvent.v1", "kfm.event.v1.AuditEvent", URL_PREFIX + "kfm.event.v1.AuditEvent", "agent.audit", "1.0.0", False, system_events_pb2.AuditEvent),
    "DeadLetterEvent.v1": EventType("DeadLetterEvent.v1", "kfm.event.v1.DeadLetterEvent", URL_PREFIX + "kfm.event.v1.DeadLetterEvent", "agent.dead_letters", "1.0.0", False, system_events_pb2.DeadLetterEvent),
    "ConfigChangedEvent.v1": EventType("ConfigChangedEvent.v1", "kfm.event.v1.ConfigChangedEvent", URL_PREFIX + "kfm.event.v1.ConfigChangedEvent", "agent.system", "1.0.0", True, system_events_pb2.ConfigChangedEvent),
    "LifecycleEvent.v1": EventType("LifecycleEvent.v1", "kfm.event.v1.LifecycleEvent", URL_PREFIX + "kfm.event.v1.LifecycleEvent", "agent.system", "1.1.0", True, system_events_pb2.LifecycleEvent),
    "PackChangedEvent.v1": EventType("PackChangedEvent.v1", "kfm.event.v1.PackChangedEvent", URL_PREFIX + "kfm.event.v1.PackChangedEvent", "agent.system", "1.4.0", True, system_events_pb2.PackChangedEvent),
    "MemoryChangedEvent.v1": EventType("MemoryChangedEvent.v1", "kfm.event.v1.MemoryChangedEvent", URL_PREFIX + "kfm.event.v1.MemoryChangedEvent", "agent.system", "1.4.0", True, system_events_pb2.MemoryChangedEvent),
    "TurnEvent.v1": EventType("TurnEvent.v1", "kfm.event.v1.TurnEvent", URL_PREFIX + "kfm.event.v1.TurnEvent", "agent.turns.requests", "1.2.0", False, turn_events_pb2.TurnEvent),
    "TurnControlEvent.v1": EventType("TurnControlEvent.v1", "kfm.event.v1.TurnControlEvent", URL_PREFIX + "kfm.event.v1.TurnControlEvent", "agent.turns.requests", "1.0.0", False, turn_events_pb2.TurnControlEvent),
    "TurnStateEvent.v1": EventType("TurnStateEvent.v1", "kfm.event.v1.TurnStateEvent", URL_PREFIX + "kfm.event.v1.TurnStateEvent", "agent.turns.events", "1.2.0", False, turn_events_pb2.TurnStateEvent),
    "PlanEvent.v1": EventType("PlanEvent.v1", "kfm.event.v1.PlanEvent", URL_PREFIX + "kfm.event.v1.PlanEvent", "agent.plans", "1.2.0", False, turn_events_pb2.PlanEvent),
    "StepEvent.v1": EventType("StepEvent.v1", "kfm.event.v1.StepEvent", URL_PREFIX + "kfm.event.v1.StepEvent", "agent.steps.requests", "1.3.0", False, turn_events_pb2.StepEvent),
    "StepResultEvent.v1": EventType("StepResultEvent.v1", "kfm.event.v1.StepResultEvent", URL_PREFIX + "kfm.event.v1.StepResultEvent", "agent.steps.results", "1.4.0", False, turn_events_pb2.StepResultEvent),
}
BY_CLASS: dict[type[Message], EventType] = {e.cls: e for e in EVENT_TYPES.values()}
BY_URL: dict[str, EventType] = {e.url: e for e in EVENT_TYPES.values()}


def pack(message: Message) -> tuple[EventType, bytes]:
    """The type and the canonical bytes of an event; KeyError if the message is none."""
    return BY_CLASS[type(message)], message.SerializeToString(deterministic=True)


def fill(envelope: envelope_pb2.Envelope, message: Message) -> EventType:
    """Put an event into an envelope: type, version, may_ignore and payload. The rest is the caller's."""
    kind, value = pack(message)
    envelope.type = kind.name
    envelope.spec_version = kind.spec_version
    envelope.may_ignore = kind.may_ignore
    envelope.payload.type_url = kind.url
    envelope.payload.value = value
    return kind


def unpack(envelope: envelope_pb2.Envelope) -> Message | None:
    """The event in an envelope; None if its type is unknown and the envelope says that it may be ignored.

    Raises EventTypeUnknown for another unknown type, EventUndecodable if type and payload disagree or
    the bytes are damaged.
    """
    kind = EVENT_TYPES.get(envelope.type)
    if kind is None:
        if envelope.may_ignore:
            return None
        raise EventTypeUnknown(metadata={"type": envelope.type, "event_id": envelope.event_id})
    if envelope.payload.type_url != kind.url:
        raise EventUndecodable(
            "The envelope's type and its payload's URL disagree.",
            metadata={"type": kind.name, "url": envelope.payload.type_url, "event_id": envelope.event_id},
        )
    try:
        return kind.cls.FromString(envelope.payload.value)
    except DecodeError:
        raise EventUndecodable(metadata={"type": kind.name, "event_id": envelope.event_id}) from None
