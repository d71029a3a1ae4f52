"""OpenTelemetry: sends spans to a collector by OTLP over gRPC. Imported only when there is an endpoint."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

from kfm_server import metrics
from kfm_server.ports.tracing import Attribute, Span, TracesAway
from kfm_server.secret import Secret

log = structlog.get_logger(__name__)
SEND_SECONDS = 5.0
FLUSH_SECONDS = 1.0
MAX_WAITING = 4096
"""Spans that `put` keeps; the oldest are dropped."""
_BATCH = 512
_MEANS = "turns go on; traces of turns are sent again later, for an hour after their end, spans of calls are dropped"
_AGAIN = frozenset(
    (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
"""What OTLP says may be sent again; the rest is refused for good."""
_KINDS = {
    "internal": otlp.Span.SPAN_KIND_INTERNAL,
    "server": otlp.Span.SPAN_KIND_SERVER,
    "client": otlp.Span.SPAN_KIND_CLIENT,
}


class OtlpTracing:
    """One per process: spans by way of `put` are batched and lossy, by way of `send` they are confirmed."""

    def __init__(
        self, endpoint: str, headers: Secret, instance: str, *, sample_ratio: float, capture_content: bool
    ) -> None:
        """`endpoint`: http:// or https:// and host:port; `headers`: `name=value`, separated by commas."""
        self.sample_ratio = sample_ratio
        self.capture_content = capture_content
        self._resource = Resource()
        _attributes(
            self._resource.attributes,
            {
                "service.name": "kfm-server",
                "service.version": version("kfm-server"),
                "service.instance.id": instance,
            },
        )
        self._scope = InstrumentationScope(name="kfm_server", version=version("kfm-server"))
        self._waiting: deque[Span] = deque(maxlen=MAX_WAITING)
        self._metadata = _metadata(headers)
        self._endpoint = urlsplit(endpoint).netloc
        self._away = False
        self._channel = _channel(endpoint)
        self._stub = TraceServiceStub(self._channel)

    def reconfigure(self, sample_ratio: float, capture_content: bool) -> None:
        """For what begins, or ends, from now on."""
        self.sample_ratio, self.capture_content = sample_ratio, capture_content

    def put(self, span: Span) -> None:
        """Send it within FLUSH_SECONDS; the oldest is dropped, and counted, if MAX_WAITING wait."""
        if len(self._waiting) == MAX_WAITING:
            metrics.SPANS_DROPPED.labels("too_many").inc()
        self._waiting.append(span)

    async def run(self) -> None:
        """Send what waits until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush()

    async def close(self) -> None:
        """Send what waits, for at most a second, and close the channel."""
        try:
            async with asyncio.timeout(1):
                await self._flush()
        except TimeoutError:
            pass
        await self._channel.close()

    async def send(self, spans: Sequence[Span]) -> None:
        """Send them now. Raises TracesAway."""
        for at in range(0, len(spans), _BATCH):
            await self._export(spans[at : at + _BATCH])

    async def _flush(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            try:
                await self._export(batch)
            except TracesAway:
                metrics.SPANS_DROPPED.labels("away").inc(len(batch))

    async def _export(self, spans: Sequence[Span]) -> None:
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add(resource=self._resource)
        scope = resource.scope_spans.add(scope=self._scope)
        for span in spans:
            _fill(scope.spans.add(), span)
        call: Any = self._stub.Export
        try:
            answer = await call(request, timeout=SEND_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in _AGAIN:
                self._tell(away=True, code=error.code().name)
                raise TracesAway(error.code().name) from None
            self._tell(away=False)
            metrics.SPANS_DROPPED.labels("refused").inc(len(spans))
            log.warning("spans_refused", code=error.code().name, count=len(spans))
            return
        self._tell(away=False)
        refused = answer.partial_success.rejected_spans
        metrics.SPANS_DROPPED.labels("refused").inc(refused)
        metrics.SPANS_SENT.inc(len(spans) - refused)

    def _tell(self, *, away: bool, code: str = "") -> None:
        """One line when the collector goes away, and one when it is back; between them it is asked again and again."""
        if away and not self._away:
            log.warning("collector_away", endpoint=self._endpoint, code=code, means=_MEANS)
        elif self._away and not away:
            log.warning("collector_back", endpoint=self._endpoint)
        elif away:
            log.debug("collector_away", endpoint=self._endpoint, code=code)
        self._away = away


def _channel(endpoint: str) -> grpc.aio.Channel:
    place = urlsplit(endpoint)
    if place.scheme == "https":
        return grpc.aio.secure_channel(place.netloc, grpc.ssl_channel_credentials())
    return grpc.aio.insecure_channel(place.netloc)


def _metadata(headers: Secret) -> tuple[tuple[str, str], ...]:
    pairs = (part.partition("=") for part in headers.reveal().split(",") if part)
    return tuple((name, value) for name, _, value in pairs)


def _fill(made: otlp.Span, span: Span) -> None:
    # Field by field: nested messages by keyword take twice as long.
    made.trace_id = bytes.fromhex(span.trace_id)
    made.span_id = bytes.fromhex(span.span_id)
    made.parent_span_id = bytes.fromhex(span.parent_id)
    made.name = span.name
    made.kind = _KINDS[span.kind]
    made.start_time_unix_nano = span.start_us * 1000
    made.end_time_unix_nano = span.end_us * 1000
    made.flags = 1
    _attributes(made.attributes, span.attributes)
    for moment in span.moments:
        event = made.events.add()
        event.time_unix_nano = moment.at_us * 1000
        event.name = moment.name
        _attributes(event.attributes, moment.attributes)
    if span.error:
        _attributes(made.attributes, {"error.type": span.error})
        made.status.code = otlp.Status.STATUS_CODE_ERROR
        made.status.message = span.error


def _attributes(into: Any, values: Mapping[str, Attribute]) -> None:
    for name, value in values.items():
        pair = into.add()
        pair.key = name
        if isinstance(value, str):
            pair.value.string_value = value
        elif isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.double_value = value
