"""Subscriptions across turns: every committed event that fits, from every process, resumed by cursor."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError
from kfm.catalogue.errors import InvalidArgument, PageTokenInvalid, Unavailable
from kfm.catalogue.events import EVENT_TYPES
from kfm.event.v1 import event_service_pb2 as rpc
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import TurnEvent

from kfm_server.clock import Clock
from kfm_server.context import ExecutionContext
from kfm_server.ids import partition_of
from kfm_server.ports.journal import Journal, JournalUnavailable
from kfm_server.runtime.event_cursor import decode_cursor, encode_cursor
from kfm_server.runtime.event_tail import EventTail

Batch = tuple[list[Envelope], str]
_EVENTS_AT_ONCE = 200
_BYTES_AT_ONCE = 256 * 1024
_SCANNED_AT_ONCE = 2_000
"""Events that did not fit, after which the cursor is told nevertheless."""
_QUIET_SECONDS = 5.0
"""After so long it is told if it has moved at all."""
_TURNS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a subscription is for; what is empty lets everything pass."""

    types: frozenset[str] = frozenset()
    session_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


class EventFeed:
    """What doors may ask about events across turns. Raises KfmError subclasses and nothing else on purpose."""

    def __init__(self, journal: Journal, tail: EventTail, clock: Clock, partitions: int) -> None:
        self._journal = journal
        self._tail = tail
        self._clock = clock
        self._partitions = partitions
        self._labels: OrderedDict[str, Mapping[str, str]] = OrderedDict()

    async def watch(
        self, ctx: ExecutionContext, wanted: Wanted, cursor: str, start: rpc.Start
    ) -> AsyncGenerator[Batch]:
        """Events in batches, each with the cursor behind it, without end. The first batch is empty: it tells where it begins.

        The events of a session come in order; they are read as fast as the batches are taken, and no faster.
        An event that cannot be decoded is passed over: it is a dead letter elsewhere. Raises InvalidArgument for an
        unknown type, PageTokenInvalid, Unavailable.
        """
        unknown = sorted(wanted.types - EVENT_TYPES.keys())
        if unknown:
            sentence = f"no event type {unknown[0]}; there are {', '.join(sorted(EVENT_TYPES))}"
            raise InvalidArgument(f"types: {sentence}", violations=[("types", "known", sentence)])
        try:
            heads = await self._journal.heads()
            at = self._begin(wanted, cursor, start, heads)
            with self._tail.reading(tuple(at), heads) as grown:
                yield [], encode_cursor(self._partitions, at)
                async for batch in self._follow(ctx.tenant_id, wanted, at, grown):
                    yield batch
        except JournalUnavailable:
            raise Unavailable(retry_after_ms=1000) from None

    def _begin(
        self, wanted: Wanted, cursor: str, start: rpc.Start, heads: Mapping[int, int]
    ) -> dict[int, int]:
        """Where each partition of interest is read from: offsets up to these are behind."""
        partitions = range(self._partitions)
        if wanted.session_id:
            only = partition_of(wanted.session_id, self._partitions)
            partitions = range(only, only + 1)
        if not cursor:
            now = start != rpc.START_BEGINNING
            return {p: heads.get(p, 0) if now else 0 for p in partitions}
        found = decode_cursor(cursor, self._partitions)
        if any(p not in found for p in partitions):
            raise PageTokenInvalid("The cursor is of a subscription to another session.")
        if any(found[p] > heads.get(p, 0) for p in partitions):
            raise PageTokenInvalid("The cursor lies beyond the last event: it was made for another database.")
        return {p: found[p] for p in partitions}

    async def _follow(
        self, tenant_id: str, wanted: Wanted, at: dict[int, int], grown: asyncio.Event
    ) -> AsyncGenerator[Batch]:
        passed, told = 0, self._clock.monotonic()
        while True:
            grown.clear()
            moved = False
            batch: list[Envelope] = []
            size = 0
            for partition in at:
                for event in await self._tail.after(partition, at[partition]):
                    envelope = event.envelope
                    if envelope is not None and await self._fits(tenant_id, wanted, envelope):
                        batch.append(envelope)
                        size += event.size
                    else:
                        passed += 1
                    moved, at[partition] = True, event.offset
                    if len(batch) >= _EVENTS_AT_ONCE or size >= _BYTES_AT_ONCE:
                        yield batch, encode_cursor(self._partitions, at)
                        batch, size, passed, told = [], 0, 0, self._clock.monotonic()
            quiet = self._clock.monotonic() - told >= _QUIET_SECONDS
            if batch or passed >= _SCANNED_AT_ONCE or (passed and quiet):
                yield batch, encode_cursor(self._partitions, at)
                passed, told = 0, self._clock.monotonic()
            if not moved:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_QUIET_SECONDS if passed else None):
                        await grown.wait()

    async def _fits(self, tenant_id: str, wanted: Wanted, envelope: Envelope) -> bool:
        return (
            envelope.tenant_id == tenant_id
            and (not wanted.types or envelope.type in wanted.types)
            and (not wanted.session_id or envelope.session_id == wanted.session_id)
            and (not wanted.labels or await self._has_labels(wanted.labels, envelope))
        )

    async def _has_labels(self, wanted: Mapping[str, str], envelope: Envelope) -> bool:
        labels = await self._labels_of(envelope)
        return all(labels.get(name) == value for name, value in wanted.items())

    async def _labels_of(self, envelope: Envelope) -> Mapping[str, str]:
        """The labels of an event's turn: they stand in its first event, and do not change."""
        turn_id = envelope.turn_id
        labels = self._labels.get(turn_id)
        if labels is None:
            labels = {}
            if envelope.sequence == 1:
                labels = _labels(envelope)
            elif turn_id:
                for stored in await self._journal.read_turn(turn_id, 0, 1):
                    labels = _labels(Envelope.FromString(stored.envelope))
            self._labels[turn_id] = labels
            if len(self._labels) > _TURNS_REMEMBERED:
                self._labels.popitem(last=False)
        return labels


def _labels(first: Envelope) -> Mapping[str, str]:
    try:
        return dict(TurnEvent.FromString(first.payload.value).labels)
    except DecodeError:
        return {}
