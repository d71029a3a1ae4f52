"""Calls over a connection: typed errors, retries under the same key, total deadlines."""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import grpc

from xenocomm import tracing
from xenocomm._gen.errors import DeadlineExceeded, Unavailable, XenocommError
from xenocomm._gen.methods import METHODS
from xenocomm._gen.pool import pb
from xenocomm.arguments import build
from xenocomm.connection import Connection, Line, Metadata
from xenocomm.failures import TRANSIENT, ConnectFailed, Unreachable, from_rpc
from xenocomm.raw import RawCall, recording, texts

_log = logging.getLogger("xenocomm")
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


def pause_s(attempt: int, error: XenocommError | None = None) -> float:
    """Seconds before attempt `attempt` + 1: exponential with full jitter, never below what the server asked for."""
    pause = random.uniform(0.5, 1.0) * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
    asked = (error.retry_after_ms or 0) / 1000 if error else 0.0
    return max(pause, asked * random.uniform(1.0, 1.25))


@dataclass(frozen=True, slots=True)
class Options:
    """How calls are made. `timeout` is the total of a unary call with all its retries, in seconds; `retries` bounds
    those before a first success; `metadata` is sent besides ours; `log_content` lets requests into the log."""

    timeout: float = 30.0
    retries: int = 5
    metadata: Metadata = ()
    spans: "tracing.Spans | None" = None
    log_content: bool = False


class Transport:
    """Calls over one connection, with one set of options."""

    def __init__(self, connection: Connection, options: Options) -> None:
        """Several transports may share a connection."""
        self.connection = connection
        self.options = options

    @property
    def endpoint(self) -> str:
        """`host:port` of the server that calls go to now."""
        return self.connection.endpoint

    @property
    def timeout(self) -> float:
        """Total of a unary call, in seconds."""
        return self.options.timeout

    def having(self, **changed: Any) -> "Transport":
        """The same connection, with some options changed."""
        return Transport(self.connection, replace(self.options, **changed))

    async def call(self, rpc: str, fields: Mapping[str, Any], timeout: float | None = None) -> Any:
        """Make a unary call, e.g. `TurnService.GetTurn`, and return its protobuf response.

        What is transient is tried again, at the next address first, until the total deadline, and, while no server has ever
        answered, at most `retries` times at each; then the last failure is raised. Every attempt sends the same bytes, the
        idempotency key included.
        """
        with self.span(rpc):
            return await self._call(rpc, fields, self.timeout if timeout is None else timeout)

    async def _call(self, rpc: str, fields: Mapping[str, Any], total: float) -> Any:
        request = build(pb(METHODS[rpc].request), fields)
        ends = time.monotonic() + total
        attempt, rounds = 0, Rounds(self)
        refused: XenocommError | None = None
        while True:
            began = time.monotonic()
            left, line = ends - began, self.connection.line()
            try:
                await self.connection.reach(line, left)
                call = line.stub(rpc)(request, timeout=max(left, 0.001), metadata=self._metadata())
                await _ended(call)
                answer = await call
            except grpc.aio.AioRpcError as error:
                failure = from_rpc(error, line.endpoint)
                _note(rpc, attempt, error, began)
            except Unreachable as error:
                failure = error
            except asyncio.CancelledError as error:
                failure = _cancelled_by_peer(self.connection.closed, error)
            else:
                self.connection.connected = True
                await _note_success(rpc, attempt, call, began)
                self._told(rpc, request, line, attempt, began, None)
                return answer
            self._told(rpc, request, line, attempt, began, failure)
            if refused is not None and isinstance(failure, DeadlineExceeded):
                # What the server answered last says more than that the time is up.
                raise refused from failure
            pause = rounds.pause_s(line, failure)
            attempt += 1
            if time.monotonic() + pause >= ends:
                raise failure
            refused = failure
            await asyncio.sleep(pause)

    def stream(self, rpc: str, fields: Mapping[str, Any]) -> "Stream":
        """Open a server stream, once: who reads it re-attaches."""
        line = self.connection.line()
        request = build(pb(METHODS[rpc].request), fields)
        self._told(rpc, request, line, 0, time.monotonic(), None)
        return Stream(self, line.stub(rpc)(request, metadata=self._metadata()))

    async def close(self) -> None:
        """Close the connection for good; calls at work are cancelled."""
        await self.connection.close()

    def span(self, rpc: str) -> AbstractContextManager[None]:
        """A span around the call of an RPC, if spans are asked for."""
        spans = self.options.spans
        return nullcontext() if spans is None else spans.around(METHODS[rpc].path)

    def _metadata(self) -> Metadata:
        given = self.options.metadata
        traced = () if any(key == "traceparent" for key, _ in given) else tracing.current()
        return (*self.connection.metadata, *given, *traced)

    def _told(
        self, rpc: str, request: Any, line: Line, attempt: int, began: float, failure: XenocommError | None
    ) -> None:
        # Neither the token nor what people said: names, numbers and reasons, unless content was asked for.
        level = logging.DEBUG if failure is None else logging.INFO
        if not _log.isEnabledFor(level):
            return
        how = "fine" if failure is None else failure.reason
        ms = (time.monotonic() - began) * 1000
        content = f": {request}".replace("\n", " ") if self.options.log_content else ""
        _log.log(
            level, "%s attempt %d at %s: %s, %.1f ms%s", rpc, attempt + 1, line.endpoint, how, ms, content
        )


class Rounds:
    """When one caller tries again: at once at an address that it has not tried; when all have failed, after a pause."""

    def __init__(self, transport: Transport) -> None:
        """Of a caller on this transport."""
        self._transport = transport
        self._round = 0
        self._tried: set[Line] = set()

    def heard(self) -> None:
        """A server answered: what comes is a new story."""
        self._round = 0
        self._tried.clear()

    def pause_s(self, line: Line, failure: XenocommError) -> float:
        """Seconds until the next attempt, after one on this line that ended by this failure.

        Raises it if it is not transient, or if no server has ever answered and `retries` rounds have failed.
        """
        if not isinstance(failure, TRANSIENT):
            raise failure
        connection = self._transport.connection
        if not isinstance(failure, ConnectFailed):
            connection.connected = True
        self._tried.add(line)
        connection.leave(line)
        if connection.line() not in self._tried:
            return 0.0
        self._tried.clear()
        pause = pause_s(self._round, failure)
        self._round += 1
        few = self._round <= self._transport.options.retries and not isinstance(failure, Unreachable)
        if not connection.connected and not few:
            raise failure
        return pause


class Stream:
    """The responses of one server stream, with typed errors."""

    def __init__(self, transport: Transport, call: Any) -> None:
        """`call` is the gRPC call that was just opened."""
        self.line = transport.connection.line()
        self._transport = transport
        self._call = call
        self._closed = False

    async def read(self) -> Any:
        """The next response, or None when the server has ended the stream well. Leaves the stream open."""
        try:
            await self._transport.connection.reach(self.line, self._transport.timeout)
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self.line.endpoint) from None
        except asyncio.CancelledError as error:
            raise _cancelled_by_peer(self._closed, error) from None
        self._transport.connection.connected = True
        if response is grpc.aio.EOF:  # pyright: ignore[reportAttributeAccessIssue]
            return None
        return response

    def cancel(self) -> None:
        """Leave the stream."""
        self._closed = True
        self._call.cancel()


async def _ended(call: Any) -> None:
    """Wait for the end of a call. Awaiting the call itself, gRPC swallows a cancellation and raises one of its own, by which
    cancel scopes of others (anyio's) do not know theirs.
    """
    ended = asyncio.get_running_loop().create_future()
    call.add_done_callback(lambda _: ended.done() or ended.set_result(None))
    try:
        await ended
    except asyncio.CancelledError:
        call.cancel()
        raise


def _cancelled_by_peer(closed_here: bool, cancelled: asyncio.CancelledError) -> XenocommError:
    """gRPC raises CancelledError also for a status of CANCELLED; only a cancelled task may see one."""
    task = asyncio.current_task()
    if closed_here or task is None or task.cancelling():
        raise cancelled  # as it came: its message may mean something to who cancelled
    return Unavailable("the server or the transport cancelled the call")


def _note(rpc: str, attempt: int, error: grpc.aio.AioRpcError, began: float) -> None:
    calls = recording()
    if calls is not None:
        sent, after = texts(error.initial_metadata()), texts(error.trailing_metadata())
        taken = time.monotonic() - began
        calls.append(RawCall(rpc, attempt + 1, error.code().name, error.details() or "", sent, after, taken))


async def _note_success(rpc: str, attempt: int, call: Any, began: float) -> None:
    calls = recording()
    if calls is not None:
        sent, after = texts(await call.initial_metadata()), texts(await call.trailing_metadata())
        calls.append(RawCall(rpc, attempt + 1, "OK", "", sent, after, time.monotonic() - began))
