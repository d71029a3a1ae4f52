"""The group `audit`: who asked for what, derived from the turns' own events."""

from collections.abc import Sequence
from typing import Protocol

from kfm.catalogue.events import fill
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.system_events_pb2 import AuditEvent, MemoryChangedEvent
from kfm.event.v1.turn_events_pb2 import TurnControlEvent, TurnEvent, TurnVerb

from kfm_server.ports.bus import BusUnavailable, Delivery, Group, TryLater


class AuditLog(Protocol):
    """Where audit events are kept, for good."""

    async def add(self, events: Sequence[Envelope]) -> None:
        """Keep them; one whose event id is known is passed over. Raises BusUnavailable."""
        ...

    async def audited(self, tenant_id: str) -> Sequence[Envelope]:
        """All of a tenant, by time. Raises BusUnavailable."""
        ...


def audit_group(audit: AuditLog) -> Group:
    """The group that derives an AuditEvent of every request, and every change of memory, that the journal holds."""

    async def derive_all(deliveries: Sequence[Delivery]) -> None:
        events = [event for delivery in deliveries if (event := derive(delivery)) is not None]
        try:
            if events:
                await audit.add(events)
        except BusUnavailable as error:
            raise TryLater from error

    return Group("audit", frozenset({"agent.turns.requests", "agent.system"}), derive_all, batch=256)


def derive(delivery: Delivery) -> Envelope | None:
    """The audit event of a request; None for what nobody asked for. Its id comes from the request's."""
    source, event = delivery.envelope, delivery.event
    if isinstance(event, TurnEvent):
        action, reason = "turn.submit", f"policy {event.policy_reference or 'default'}"
        if event.parent_turn_id:
            action = "turn.retry" if event.root_turn_id else "turn.fork"
        principal = event.principal
    elif isinstance(event, TurnControlEvent):
        action, reason = f"turn.{_verb(event.verb)}", event.reason
        principal = event.principal
    elif isinstance(event, MemoryChangedEvent):
        counts = " ".join(f"{name}={count}" for name, count in sorted(event.counts.items()))
        action, reason, principal = f"memory.{event.action}", counts, event.principal
    else:
        return None
    envelope = Envelope(
        event_id=f"{source.event_id}.audit",
        timestamp=source.timestamp,
        trace_id=source.trace_id,
        traceparent=source.traceparent,
        tenant_id=source.tenant_id,
        session_id=source.session_id,
        turn_id=source.turn_id,
        causation_id=source.event_id,
    )
    fill(
        envelope,
        AuditEvent(
            principal=principal,
            action=action,
            resource=event.resource if isinstance(event, MemoryChangedEvent) else source.turn_id,
            allowed=True,
            reason=reason,
            source_event_id=source.event_id,
        ),
    )
    return envelope


def _verb(verb: TurnVerb) -> str:
    if verb not in TurnVerb.values():
        return str(int(verb))
    return TurnVerb.Name(verb).removeprefix("TURN_VERB_").lower()
