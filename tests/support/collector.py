"""A collector of OpenTelemetry in this process: takes spans by OTLP over gRPC and keeps them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SECONDS = 30.0


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent; with `refuses` set it answers that instead."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.metadata: list[dict[str, str]] = []
        self.asked = 0
        self.refuses: grpc.StatusCode | None = None
        self._more = asyncio.Condition()

    async def Export(
        self, request: pb.ExportTraceServiceRequest, context: Any
    ) -> pb.ExportTraceServiceResponse:
        """What a server sends."""
        async with self._more:
            self.asked += 1
            self._more.notify_all()
            if self.refuses is not None:
                await context.abort(self.refuses, "not now")
            self.metadata.append(dict(context.invocation_metadata()))
            for resource in request.resource_spans:
                self.resources.append({a.key: a.value.string_value for a in resource.resource.attributes})
                for scope in resource.scope_spans:
                    self.spans += scope.spans
        return pb.ExportTraceServiceResponse()

    async def until(self, holds: Callable[["Collector"], bool]) -> None:
        """Wait, bounded, until it holds."""
        async with asyncio.timeout(SECONDS), self._more:
            await self._more.wait_for(lambda: holds(self))

    async def trace(self, trace_id: str, wanted: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans of a trace, once they are what is wanted."""

        def mine(_: "Collector | None" = None) -> list[Span]:
            return [span for span in self.spans if span.trace_id.hex() == trace_id]

        await self.until(lambda _: wanted(mine()))
        return mine()


def attributes(span: Span) -> dict[str, Any]:
    """A span's attributes as plain values."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value") for a in span.attributes}


def tree(spans: list[Span]) -> dict[str, str]:
    """Each span's name and the name of its parent; empty for one whose parent is not among them."""
    names = {span.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent_span_id, "") for span in spans}


@asynccontextmanager
async def collector(address: str = "127.0.0.1:0") -> AsyncIterator[Collector]:
    """One that listens."""
    found, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    found.endpoint = f"http://127.0.0.1:{server.add_insecure_port(address)}"
    await server.start()
    try:
        yield found
    finally:
        await server.stop(0)
