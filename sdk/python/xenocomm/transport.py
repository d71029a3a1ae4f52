"""One channel, and calls over it: typed errors, retries under the same key, total deadlines."""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

import grpc

from xenocomm._gen.errors import DeadlineExceeded, Unavailable, XenocommError
from xenocomm._gen.methods import METHODS
from xenocomm._gen.pool import pb
from xenocomm.arguments import build
from xenocomm.failures import TRANSIENT, ConnectFailed, Unreachable, from_rpc

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
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


def pause_s(attempt: int, error: XenocommError | None = None) -> float:
    """Seconds before attempt `attempt` + 1: exponential with full jitter, never below what the server asked for."""
    pause = random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
    asked = (error.retry_after_ms or 0) / 1000 if error else 0.0
    return max(pause, asked * random.uniform(1.0, 1.25))


class Transport:
    """A lazily connected channel to one endpoint. Not shared between event loops."""

    def __init__(self, endpoint: str, token: str, timeout: float, retries: int) -> None:
        """`timeout` is the total of a unary call with all its retries, in seconds; `retries` bounds those before a first success."""
        self.endpoint = endpoint
        self.timeout = timeout
        self.retries = retries
        self.connected = False
        self._closed = False
        self._metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, tuple[Any, type[Any]]] = {}

    async def call(self, rpc: str, fields: Mapping[str, Any], timeout: float | None = None) -> Any:
        """Make a unary call, e.g. `TurnService.GetTurn`, and return its protobuf response.

        What is transient is tried again until the total deadline, and, while no server has ever answered, at most
        `retries` times; then the last failure is raised. Every attempt sends the same bytes, the idempotency key included.
        """
        stub, request_class = self._stub(rpc)
        request = build(request_class, fields)
        total = self.timeout if timeout is None else timeout
        ends = time.monotonic() + total
        attempt = 0
        refused: XenocommError | None = None
        while True:
            left = ends - time.monotonic()
            try:
                await self.reach(left)
                answer = await stub(request, timeout=max(left, 0.001), metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                failure = from_rpc(error, self.endpoint)
            except Unreachable as error:
                failure = error
            except asyncio.CancelledError:
                failure = _cancelled_by_peer(self._channel is None)
            else:
                self.connected = True
                return answer
            if refused is not None and isinstance(failure, DeadlineExceeded):
                # What the server answered last says more than that the time is up.
                raise refused from failure
            if not isinstance(failure, TRANSIENT):
                raise failure
            pause = pause_s(attempt, failure)
            attempt += 1
            if not self.may_retry(failure, attempt) or time.monotonic() + pause >= ends:
                raise failure
            refused = failure
            await asyncio.sleep(pause)

    async def reach(self, longest: float) -> None:
        """Before the first success: wait until the channel is connected or has failed to. Unreachable after a few seconds.

        A call on a channel that neither connects nor fails, as when no resolver answers, would wait for its own deadline.
        """
        channel = self._open()
        if self.connected:
            return
        bound = max(0.001, min(longest, _CONNECT_S))
        try:
            async with asyncio.timeout(bound):
                while (state := channel.get_state(try_to_connect=True)) in _ON_THE_WAY:
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            raise Unreachable(f"No server answers at {self.endpoint}: no connection in {bound:g} s") from None
        self._open()  # raises if it was closed meanwhile

    def may_retry(self, failure: XenocommError, attempt: int) -> bool:
        """Whether a transient failure may be tried again: freely once a server has answered, else a few times."""
        if not isinstance(failure, ConnectFailed):
            self.connected = True
        return self.connected or (attempt <= self.retries and not isinstance(failure, Unreachable))

    def stream(self, rpc: str, fields: Mapping[str, Any]) -> "Stream":
        """Open a server stream, once: who reads it re-attaches."""
        stub, request_class = self._stub(rpc)
        return Stream(self, stub(build(request_class, fields), metadata=self._metadata))

    async def close(self) -> None:
        """Close the channel for good; calls at work are cancelled."""
        self._closed = True
        channel, self._channel = self._channel, None
        self._calls.clear()
        if channel is not None:
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._closed:
            raise RuntimeError("this Client is closed: use it inside its `async with`, or make another")
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.endpoint, options=_OPTIONS)
        return self._channel

    def _stub(self, rpc: str) -> tuple[Any, type[Any]]:
        channel = self._open()
        found = self._calls.get(rpc)
        if found is None:
            method = METHODS[rpc]
            kind = channel.unary_stream if method.server_streaming else channel.unary_unary
            request, response = pb(method.request), pb(method.response)
            stub = kind(
                method.path,
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            found = self._calls[rpc] = (stub, request)
        return found


class Stream:
    """The responses of one server stream, with typed errors."""

    def __init__(self, transport: Transport, call: Any) -> None:
        """`call` is the open gRPC call."""
        self._transport = transport
        self._call = call
        self._closed = False

    async def read(self) -> Any:
        """The next response, or None when the server has ended the stream well. Leaves the stream open."""
        try:
            await self._transport.reach(self._transport.timeout)
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self._transport.endpoint) from None
        except asyncio.CancelledError:
            raise _cancelled_by_peer(self._closed) from None
        self._transport.connected = True
        if response is grpc.aio.EOF:  # pyright: ignore[reportAttributeAccessIssue]
            return None
        return response

    def cancel(self) -> None:
        """Leave the stream."""
        self._closed = True
        self._call.cancel()


def _cancelled_by_peer(closed_here: bool) -> XenocommError:
    """gRPC raises CancelledError also for a status of CANCELLED; only a cancelled task may see one. Called in its handler."""
    task = asyncio.current_task()
    if closed_here or task is None or task.cancelling():
        raise asyncio.CancelledError
    return Unavailable("the server or the transport cancelled the call")
