"""A collector that takes spans by OTLP and forgets them; prints its port, then how many spans came at each line of stdin."""

import asyncio
import sys
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Counts."""

    def __init__(self) -> None:
        self.spans = 0

    async def Export(
        self, request: pb.ExportTraceServiceRequest, context: Any
    ) -> pb.ExportTraceServiceResponse:
        """What a server sends."""
        self.spans += sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        return pb.ExportTraceServiceResponse()


async def main() -> None:
    """Serve until stdin ends."""
    taker, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(taker, server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    while await asyncio.to_thread(sys.stdin.readline):
        print(taker.spans, flush=True)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
