"""A channel to each address that is in use: opened when first used, shared by all clients that were made from one."""

import asyncio
import random
from typing import Any

import grpc

from xenocomm._gen.methods import METHODS
from xenocomm._gen.pool import pb
from xenocomm.failures import Unreachable

_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Retries are ours: the channel would repeat calls without knowing their total deadline.
    ("grpc.enable_retries", 0),
    # Two clients of one process are two connections, so that closing one never disturbs the other.
    ("grpc.use_local_subchannel_pool", 1),
    # A reader that is slow lets the server know soon; the default window swallows megabytes.
    ("grpc.http2.bdp_probe", 0),
]
_CONNECT_S = 5.0
_ON_THE_WAY = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)

Metadata = tuple[tuple[str, str], ...]


class Connection:
    """To servers on one database, any of which answers. Not shared between event loops."""

    def __init__(self, endpoint: str, token: str = "", roots: bytes | None = None) -> None:
        """`endpoint`: one `host:port` or several with commas between; which of them comes first is drawn.

        `roots`: certificates in PEM that the server's must go back to, empty for those of gRPC; None is without TLS.
        """
        self.given = endpoint
        self.connected = False
        self.closed = False
        self.metadata: Metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._lines = [Line(address, roots) for address in endpoint.split(",")]
        self._current = random.randrange(len(self._lines))

    @property
    def endpoint(self) -> str:
        """Where calls go now."""
        return self._lines[self._current].endpoint

    def line(self) -> "Line":
        """The channel that calls go over now. RuntimeError once closed."""
        if self.closed:
            raise RuntimeError("this Client is closed: use it inside its `async with`, or make another")
        return self._lines[self._current]

    def leave(self, line: "Line") -> None:
        """Calls failed there: they go to the next address from now on, if they did not go elsewhere already."""
        if self._lines[self._current] is line:
            self._current = (self._current + 1) % len(self._lines)

    async def reach(self, line: "Line", longest: float) -> None:
        """Before the first success: wait until the channel is connected or has failed to. Unreachable after a few seconds.

        A call on a channel that neither connects nor fails, as when no resolver answers, would wait for its own deadline.
        """
        if not self.connected:
            await line.reach(longest)
            self.line()  # raises if it was closed meanwhile

    async def close(self) -> None:
        """Close the channels for good; calls at work are cancelled."""
        self.closed = True
        for line in self._lines:
            await line.close()


class Line:
    """The channel to one address."""

    def __init__(self, endpoint: str, roots: bytes | None) -> None:
        """Opens nothing yet."""
        self.endpoint = endpoint
        self._roots = roots
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}

    def stub(self, rpc: str) -> Any:
        """What makes a call of an RPC, e.g. `TurnService.GetTurn`."""
        found = self._stubs.get(rpc)
        if found is None:
            method, channel = METHODS[rpc], self._open()
            kind = channel.unary_stream if method.server_streaming else channel.unary_unary
            found = self._stubs[rpc] = kind(
                method.path,
                request_serializer=pb(method.request).SerializeToString,
                response_deserializer=pb(method.response).FromString,
            )
        return found

    async def reach(self, longest: float) -> None:
        """Wait until the channel is connected or has failed to. Unreachable after a few seconds."""
        channel, bound = self._open(), max(0.001, min(longest, _CONNECT_S))
        try:
            async with asyncio.timeout(bound):
                while (state := channel.get_state(try_to_connect=True)) in _ON_THE_WAY:
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            raise Unreachable(f"No server answers at {self.endpoint}: no connection in {bound:g} s") from None

    async def close(self) -> None:
        """Close it; the next call would open another."""
        channel, self._channel = self._channel, None
        self._stubs.clear()
        if channel is not None:
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self._roots is None:
                self._channel = grpc.aio.insecure_channel(self.endpoint, options=_OPTIONS)
            else:
                credentials = grpc.ssl_channel_credentials(self._roots or None)
                self._channel = grpc.aio.secure_channel(self.endpoint, credentials, options=_OPTIONS)
        return self._channel
