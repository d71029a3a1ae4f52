"""Traces: the caller's context goes with every call; spans of our own only when asked for. OpenTelemetry is never imported unasked."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from xenocomm.arguments import refuse
from xenocomm.connection import Metadata


def current() -> Metadata:
    """W3C trace context of the caller's current OpenTelemetry span; nothing when there is none.

    A caller who has a span has imported OpenTelemetry; so we only look whether it is there.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ()
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ()
    flags = int(context.trace_flags) & 0xFF
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
    state = context.trace_state.to_header() if context.trace_state else ""
    return (("traceparent", traceparent), *((("tracestate", state),) if state else ()))


class Spans:
    """A client span around every call: names and numbers, no content."""

    def __init__(self, endpoint: str) -> None:  # which of several a call goes to is known only in it
        """InvalidArgument if OpenTelemetry is not installed."""
        try:
            from opentelemetry import trace
        except ImportError:
            raise refuse("spans", "needs the package opentelemetry-api", "client.missing") from None
        self._trace: Any = trace
        self._tracer: Any = trace.get_tracer("xenocomm")
        host, _, port = endpoint.rpartition(":")
        alone = {"server.address": host.strip("[]"), "server.port": int(port)}
        self._peer = alone if "," not in endpoint else {"server.address": endpoint}

    @contextmanager
    def around(self, path: str) -> Generator[None]:
        """The span of one call of `/package.Service/Method`, retries included; a failure is noted by its reason."""
        service, _, method = path.strip("/").partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, **self._peer}
        with self._tracer.start_as_current_span(
            path.strip("/"),
            kind=self._trace.SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                reason = getattr(error, "reason", type(error).__name__)
                span.set_attribute("error.type", reason)
                span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, reason))
                raise
