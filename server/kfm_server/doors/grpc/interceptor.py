"""What every call passes, outermost: token, request id, limits, decoding, validation, deadline, errors.

Handlers get bytes and give bytes. gRPC's own deserialisers answer UNKNOWN with a Python text to bytes that
they cannot read; here the same bytes are a typed INVALID_ARGUMENT.
"""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import Message
from grpc.aio import ServicerContext
from kfm.catalogue.errors import DeadlineExceeded, Internal, KfmError, Unauthenticated, Unimplemented
from kfm.catalogue.methods import Method
from prometheus_client import Counter, Histogram

from kfm_server.context import AT_OWNER, ExecutionContext, work_on
from kfm_server.doors.binding import token_matches
from kfm_server.doors.grpc.errors import to_status
from kfm_server.doors.grpc.limits import Gate, Limits
from kfm_server.doors.grpc.validation import parse
from kfm_server.ports.tracing import Span, Tracing
from kfm_server.trace_ids import in_ratio, new_span_id, parse_traceparent, traceparent

_log = structlog.get_logger("kfm.door.grpc")
_REQUEST_ID = re.compile(r"[!-~]{1,128}\Z")
_LEFT = "REASON_CANCELLED"
"""Of a call that neither answered nor failed: its caller left."""
_HEALTH = "/grpc.health.v1.Health/"

_calls = Counter(
    "kfm_grpc_calls_total", "Calls by method and reason; OK when they went well.", ["rpc", "reason"]
)
_seconds = Histogram(
    "kfm_grpc_call_seconds",
    "Time from a unary call's arrival to its answer.",
    ["rpc"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as a service sees it.

    `remaining_s` is None when the caller set no deadline. `at_owner`: another process asks this one as the owner.
    `parent_id`: the caller's span, `began_us`: when the call came; both for its own span.
    """

    ctx: ExecutionContext
    request_id: str
    remaining_s: float | None
    at_owner: bool = False
    parent_id: str = ""
    began_us: int = 0


UnaryBody = Callable[[Call, Any], Awaitable[Message]]
StreamBody = Callable[[Call, Any], AsyncGenerator[Message, None]]
"""Of a method to which the client streams too, the second is its requests, an AsyncIterator."""
Handler = Callable[..., Any]
AnyHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Edge:
    """Makes gRPC handlers out of the bodies that services write."""

    def __init__(self, limits: Limits, gate: Gate, token: str = "", tracing: Tracing | None = None) -> None:
        """With an empty token no call needs one; without tracing calls make no spans."""
        self._tracing = tracing
        self._limits = limits
        self._gate = gate
        self._token = token

    def handler(self, method: Method, body: Callable[[Call, Any], Any]) -> AnyHandler:
        """The handler of one method of the catalogue; the body is a UnaryBody or a StreamBody, as the method says."""
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(method, body))
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, body))
        return grpc.unary_unary_rpc_method_handler(self._unary(method, body))

    def _unary(self, method: Method, body: UnaryBody) -> Handler:
        ok, seconds = _calls.labels(method.path, "OK"), _seconds.labels(method.path)
        waits = method.name == "WaitTurn"
        limits, gate = self._limits, self._gate

        async def unary(raw: bytes, context: ServicerContext[bytes, bytes]) -> bytes:
            began = time.perf_counter()
            call = self._call(method.path, context)
            reason, scope = _LEFT, None
            try:
                self._authorise(context)
                with gate.stream() if waits else gate.unary(method.read_only):
                    request = parse(method.request, raw, limits.max_message_bytes)
                    async with asyncio.timeout(None if waits else limits.unary_timeout_s) as scope:
                        answer = await body(call, request)
                    raw_answer = answer.SerializeToString()
                reason = ""
            except Exception as error:
                if isinstance(error, TimeoutError) and scope is not None and scope.expired():
                    error = DeadlineExceeded()
                reason = reason_of(error)
                return await self._fail(method.path, error, call, context)
            finally:
                self._trace(method, call, reason)
            ok.inc()
            seconds.observe(time.perf_counter() - began)
            return raw_answer

        return unary

    def _stream(self, method: Method, body: StreamBody) -> Handler:
        ok = _calls.labels(method.path, "OK")
        limits, gate = self._limits, self._gate
        brings_work = not method.read_only and not method.client_streaming

        def parsed(raw: bytes) -> Message:
            return parse(method.request, raw, limits.max_message_bytes)

        async def each_parsed(raws: AsyncIterator[bytes]) -> AsyncGenerator[Message, None]:
            async for raw in raws:
                yield parsed(raw)

        async def stream(raw: Any, context: ServicerContext[bytes, bytes]) -> AsyncGenerator[bytes, None]:
            call, reason = self._call(method.path, context), _LEFT
            try:
                self._authorise(context)
                with gate.stream():
                    request = each_parsed(raw) if method.client_streaming else parsed(raw)
                    async with aclosing(body(call, request)) as answers:
                        if brings_work:
                            with gate.unary(False):  # it counts as a call until its work has come in
                                first = await anext(answers)
                            yield first.SerializeToString()
                        async for answer in answers:
                            raw_answer = answer.SerializeToString()
                            del answer  # an idle stream keeps nothing of what it has sent
                            yield raw_answer
                reason = ""
            except Exception as error:
                reason = reason_of(error)
                await self._fail(method.path, error, call, context)
            finally:
                self._trace(method, call, reason)
            ok.inc()

        return stream

    def guard(self, path: str, inner: AnyHandler) -> AnyHandler:
        """The same handler of another library's service, behind token and limits.

        Health needs no token, for probes carry none, and its watches are counted apart. TypeError for a shape of
        handler that no such service has.
        """
        # The library's types know only the synchronous API.
        behaviour: Any = inner.stream_stream or inner.unary_stream or inner.unary_unary
        codec = (inner.request_deserializer, inner.response_serializer)

        async def reflect(requests: Any, context: ServicerContext[Any, Any]) -> AsyncGenerator[Any, None]:
            try:
                self._authorise(context)
                with self._gate.stream():
                    async with aclosing(behaviour(requests, context)) as answers:
                        async for answer in answers:
                            yield answer
            except KfmError as error:
                await self._fail(path, error, self._call(path, context), context)

        async def watch_health(request: Any, context: ServicerContext[Any, Any]) -> None:
            try:
                with self._gate.health_watch():
                    await behaviour(request, context)
            except KfmError as error:
                await self._fail(path, error, self._call(path, context), context)

        if path.startswith(_HEALTH):
            if inner.unary_stream is None:
                return inner  # answers at once
            return grpc.unary_stream_rpc_method_handler(watch_health, *codec)
        if inner.stream_stream is None:
            raise TypeError(f"no guard is written for the shape of {path}")
        return grpc.stream_stream_rpc_method_handler(reflect, *codec)

    def unknown(self, path: str) -> AnyHandler:
        """A handler that refuses a method which the server does not have."""

        async def refuse(requests: AsyncIterator[bytes], context: ServicerContext[bytes, bytes]) -> bytes:
            del requests
            call = self._call("unknown", context)
            try:
                self._authorise(context)
                raise Unimplemented(f"The server has no method {path[:200]}.")
            except KfmError as error:
                return await self._fail("unknown", error, call, context)

        return grpc.stream_unary_rpc_method_handler(refuse)

    def _authorise(self, context: ServicerContext[Any, Any]) -> None:
        if not self._token:
            return
        given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if any(token_matches(value, self._token) for value in given):
            return
        if given:
            raise Unauthenticated(
                "The token sent is wrong: the metadata `authorization` must be `Bearer` and the server's token."
            )
        raise Unauthenticated("Send the token as metadata `authorization: Bearer <token>`.")

    def _call(self, path: str, context: ServicerContext[Any, Any]) -> Call:
        request_id = handed_on = trace_id = parent_id = ""
        at_owner = sampled = False
        for key, value in context.invocation_metadata() or ():
            if isinstance(value, bytes):
                continue
            if key == "x-request-id" and _REQUEST_ID.match(value):
                request_id = value
            elif key == "traceparent" and (parent := parse_traceparent(value)):
                handed_on = value
                trace_id, parent_id, sampled = parent
            elif key == AT_OWNER:
                at_owner = True
        fresh = "" if request_id and trace_id else uuid.uuid4().hex
        trace_id, request_id, began_us = trace_id or fresh, request_id or fresh, 0
        if self._tracing is not None:
            began_us = time.time_ns() // 1000
            sampled = sampled if parent_id else in_ratio(trace_id, self._tracing.sample_ratio)
            handed_on = traceparent(trace_id, new_span_id(), sampled)
        work_on(trace_id=trace_id, request_id=request_id, rpc=path)  # the task is this call's alone
        ctx = ExecutionContext(
            principal="token" if self._token else "anonymous",
            trace_id=trace_id,
            traceparent=handed_on,
        )
        return Call(ctx, request_id, context.time_remaining(), at_owner, parent_id, began_us)

    def _trace(self, method: Method, call: Call, reason: str) -> None:
        if self._tracing is None:
            return
        mine = parse_traceparent(call.ctx.traceparent)
        if mine is None or not mine[2]:
            return
        self._tracing.put(
            Span(
                call.ctx.trace_id,
                mine[1],
                call.parent_id,
                f"{method.service}/{method.name}",
                call.began_us,
                time.time_ns() // 1000,
                "server",
                {"rpc.system": "grpc", "rpc.service": method.service, "rpc.method": method.name},
                error=reason,
            )
        )

    async def _fail(self, path: str, error: Exception, call: Call, context: ServicerContext[Any, Any]) -> Any:
        if isinstance(error, KfmError):
            level = _log.error if error.reason == "REASON_INTERNAL" else _log.info
            level(
                "call refused",
                rpc=path,
                reason=error.reason,
                request_id=call.request_id,
                text=error.message[:300],
            )
        else:
            _log.error(
                "call failed",
                rpc=path,
                request_id=call.request_id,
                trace_id=call.ctx.trace_id,
                exc_info=error,
            )
            error = Internal(metadata={})
        _calls.labels(path, error.reason).inc()
        code, message, trailer = to_status(error, call.request_id)
        await context.abort(code, message, trailer)


def reason_of(error: Exception) -> str:
    """The reason that a caller is told."""
    return error.reason if isinstance(error, KfmError) else "REASON_INTERNAL"


class Router(grpc.GenericRpcHandler):
    """Finds the handler of a path. Everything has one: what is not known is refused in the same typed way."""

    def __init__(self, edge: Edge, handlers: dict[str, AnyHandler]) -> None:
        """`handlers` by full path, `/package.Service/Method`."""
        self._edge = edge
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> AnyHandler:
        """The handler for one call."""
        found = self._handlers.get(handler_call_details.method)
        return found if found is not None else self._edge.unknown(handler_call_details.method)


def routes(edge: Edge, methods: dict[str, Method], services: Sequence[object]) -> dict[str, AnyHandler]:
    """A handler for every method of the catalogue. LookupError if no service has a body for one."""
    found: dict[str, AnyHandler] = {}
    for path, method in methods.items():
        owner = next((s for s in services if getattr(s, "SERVICE", None) == method.service), None)
        body = getattr(owner, method.name, None)
        if body is None:
            raise LookupError(f"no service handles {path}")
        found[path] = edge.handler(method, body)
    return found
