"""The group `traces`: when a turn has ended, its spans are made of its events and sent. The turn itself pays nothing."""

from collections.abc import Sequence

import structlog
from google.protobuf.message import Message
from kfm.catalogue.events import unpack
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import TURN_CHANGE_FINISHED, TurnStateEvent

from kfm_server import metrics
from kfm_server.bus.turn_spans import turn_spans
from kfm_server.clock import Clock
from kfm_server.ports.bus import Delivery, Group, Retries, TryLater
from kfm_server.ports.journal import Journal, JournalUnavailable, Stored
from kfm_server.ports.tracing import Span, TracesAway, Tracing
from kfm_server.trace_ids import in_ratio, parse_traceparent

log = structlog.get_logger(__name__)
MAX_AGE_SECONDS = 3600
"""Turns that ended longer ago are passed over: nobody took their spans in all that time."""
_TURNS_AT_A_TIME = 16


class TurnTraces:
    """Makes and sends the spans of turns that ended. A crash loses none: what was not sent is read again."""

    def __init__(self, journal: Journal, tracing: Tracing, clock: Clock) -> None:
        self._journal = journal
        self._tracing = tracing
        self._clock = clock

    @property
    def group(self) -> Group:
        """The consumer group."""
        # The handler tells by TryLater what may be tried again, and drops what is wrong by itself.
        return Group(
            "traces", frozenset({"agent.turns.events"}), self.take, batch=64, retries=Retries(timeout=120)
        )

    async def take(self, deliveries: Sequence[Delivery]) -> None:
        """Send the spans of the turns that ended. Raises TryLater."""
        ended = [d.envelope for d in deliveries if _is_end(d.event) and self._wanted(d.envelope)]
        for at in range(0, len(ended), _TURNS_AT_A_TIME):
            turns = [envelope.turn_id for envelope in ended[at : at + _TURNS_AT_A_TIME]]
            try:
                stored = await self._journal.read_turns(turns)
                await self._tracing.send(self._spans(turns, stored))
            except (JournalUnavailable, TracesAway) as error:
                raise TryLater from error

    def _wanted(self, end: Envelope) -> bool:
        if self._clock.now_us() - end.timestamp.ToMicroseconds() > MAX_AGE_SECONDS * 1_000_000:
            metrics.SPANS_DROPPED.labels("too_old").inc()
            return False
        parent = parse_traceparent(end.traceparent)
        return parent[2] if parent else in_ratio(end.trace_id, self._tracing.sample_ratio)

    def _spans(self, turns: Sequence[str], stored: Sequence[Stored]) -> list[Span]:
        found: list[Span] = []
        for turn_id in turns:
            try:
                events = [event for row in stored if row.turn_id == turn_id for event in _decoded(row)]
                found += turn_spans(events, content=self._tracing.capture_content)
            except Exception as error:  # an event that nobody can read: whoever folds it buries it
                metrics.SPANS_DROPPED.labels("unreadable").inc()
                log.warning("turn_not_traced", turn_id=turn_id, error=type(error).__name__)
        return found


def _is_end(event: Message) -> bool:
    return isinstance(event, TurnStateEvent) and event.change == TURN_CHANGE_FINISHED


def _decoded(row: Stored) -> list[tuple[Envelope, Message]]:
    envelope = Envelope.FromString(row.envelope)
    payload = unpack(envelope)
    return [] if payload is None else [(envelope, payload)]
