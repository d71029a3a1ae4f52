"""How long the oldest event that a group has yet to read has waited: what workers are scaled by."""

from typing import Protocol

from google.protobuf.message import DecodeError
from kfm.event.v1.envelope_pb2 import Envelope

from kfm_server.clock import Clock
from kfm_server.ports.bus import EventSource

_STALE_SECONDS = 3.0
"""A backlog that has stood this long is asked for its oldest event; until then it is only watched."""


class Place(Protocol):
    """Where a reader stands."""

    channel: str
    partition: int
    offset: int


class Backlog:
    """Of one reader. In health it reads nothing: how long heads were seen ahead of the reader is enough."""

    def __init__(self) -> None:
        self._seen_head: int | None = None
        self._seen_at = 0.0
        self._oldest: tuple[int, int] = (-1, 0)

    async def seconds(self, source: EventSource, place: Place, head: int, clock: Clock) -> float:
        """The age of the oldest event behind the reader's offset; 0 if there is none. Raises as the source."""
        if place.offset >= head:
            self._seen_head = 0
            return 0.0
        now, first = clock.monotonic(), self._seen_head is None
        if self._seen_head is None or place.offset >= self._seen_head:
            self._seen_head, self._seen_at = head, now
        if not first and now - self._seen_at < _STALE_SECONDS:
            return now - self._seen_at
        if self._oldest[0] != place.offset:
            self._oldest = (place.offset, await _time_after(source, place) or clock.now_us())
        return max(0.0, (clock.now_us() - self._oldest[1]) / 1e6)


async def _time_after(source: EventSource, place: Place) -> int:
    for stored in await source.read(place.channel, place.partition, place.offset, 1):
        try:
            return Envelope.FromString(stored.envelope).timestamp.ToMicroseconds()
        except DecodeError:
            pass
    return 0
