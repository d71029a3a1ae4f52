"""Every limit of the gRPC door, in one place, and the gate that counts calls against them."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from kfm.catalogue.errors import Draining, Overloaded, TooManyStreams


@dataclass(frozen=True, slots=True)
class Limits:
    """What the door accepts. Error messages quote these names, so that an operator knows which one to raise."""

    max_message_bytes: int = 4 * 1024 * 1024
    """Largest request, decoded."""
    max_metadata_bytes: int = 16 * 1024
    """Largest request headers."""
    max_in_flight: int = 1_024
    """Unary calls at work at one time, WaitTurn not counted; and streams that bring work, until their first answer."""
    max_streams: int = 12_000
    """Streams and waiting calls open at one time."""
    max_health_watches: int = 1_000
    """Streams of Health.Watch open at one time. They are apart: they need no token, and must not take anybody's place."""
    max_streams_per_connection: int = 12_000
    """HTTP/2 streams on one connection; more wait at the client."""
    max_pending: int = 24_000
    """Calls that the transport has accepted and that no handler has taken yet."""
    retry_after_ms: int = 250
    """When a refused caller may come back, for unary calls; streams are told four times as much."""
    unary_timeout_s: float = 60.0
    """Longest a unary call may take when its caller sets no shorter deadline, WaitTurn not counted."""
    keepalive_time_ms: int = 30_000
    """Silence after which the server pings a client."""
    keepalive_timeout_ms: int = 20_000
    """Wait for the answer to a ping before the connection is cut."""
    min_ping_interval_ms: int = 5_000
    """Clients that ping more often than this are cut."""
    max_ping_strikes: int = 5
    """Pings too many that are forgiven."""

    def options(self) -> list[tuple[str, int]]:
        """The options of grpc.aio.server. The transport reads twice the message limit, so that what is a little too large gets a typed error."""
        return [
            ("grpc.max_receive_message_length", 2 * self.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", self.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            ("grpc.max_concurrent_streams", self.max_streams_per_connection),
            ("grpc.server.max_pending_requests", self.max_pending),
            ("grpc.server.max_pending_requests_hard_limit", self.max_pending),
            ("grpc.keepalive_time_ms", self.keepalive_time_ms),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", self.min_ping_interval_ms),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", self.min_ping_interval_ms),
            ("grpc.http2.max_ping_strikes", self.max_ping_strikes),
            ("grpc.so_reuseport", 0),
        ]


class Gate:
    """Counts calls and refuses those over a limit, or all new ones while the server drains."""

    def __init__(self, limits: Limits) -> None:
        """Start open, with nothing counted."""
        self._limits = limits
        self.in_flight = 0
        self.streams = 0
        self.health_watches = 0
        self.draining = False
        self._last_left: asyncio.Event | None = None

    @contextmanager
    def unary(self, read_only: bool) -> Generator[None]:
        """Hold a place of a unary call. Overloaded over the limit; Draining for what changes something while the server stops."""
        if self.draining and not read_only:
            raise Draining(retry_after_ms=4 * self._limits.retry_after_ms)
        if self.in_flight >= self._limits.max_in_flight:
            raise Overloaded(
                f"The server is at max_in_flight={self._limits.max_in_flight} calls.",
                metadata={"limit": "max_in_flight", "value": str(self._limits.max_in_flight)},
                retry_after_ms=self._limits.retry_after_ms,
            )
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._left()

    @contextmanager
    def stream(self) -> Generator[None]:
        """Hold a place of a stream or a waiting call. TooManyStreams over the limit, Draining while the server stops."""
        if self.draining:
            raise Draining(retry_after_ms=4 * self._limits.retry_after_ms)
        if self.streams >= self._limits.max_streams:
            raise TooManyStreams(
                f"The server holds max_streams={self._limits.max_streams} streams.",
                metadata={"limit": "max_streams", "value": str(self._limits.max_streams)},
                retry_after_ms=4 * self._limits.retry_after_ms,
            )
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1
            self._left()

    @contextmanager
    def health_watch(self) -> Generator[None]:
        """Hold a place of a Health.Watch. TooManyStreams over the limit. A drain does not wait for it."""
        if self.health_watches >= self._limits.max_health_watches:
            raise TooManyStreams(
                f"The server holds max_health_watches={self._limits.max_health_watches} streams of health.",
                metadata={"limit": "max_health_watches", "value": str(self._limits.max_health_watches)},
                retry_after_ms=4 * self._limits.retry_after_ms,
            )
        self.health_watches += 1
        try:
            yield
        finally:
            self.health_watches -= 1

    async def empty(self) -> None:
        """Return once no call is left, those of health apart."""
        self._last_left = asyncio.Event()
        self._left()
        await self._last_left.wait()

    def _left(self) -> None:
        if self._last_left is not None and not self.in_flight and not self.streams:
            self._last_left.set()
