"""kfm.worker.v1.WorkerService: one stream for each worker, both ways."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final, Protocol

from google.protobuf.duration_pb2 import Duration
from kfm.catalogue.errors import ERROR_CLASSES, Overloaded
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server.canonical import clean_text, parse_json, sanitised_json
from kfm_server.doors.grpc.interceptor import Call
from kfm_server.doors.grpc.validation import invalid
from kfm_server.ports.steps import AttemptResult, Failure
from kfm_server.runtime.pools.connections import Connections
from kfm_server.runtime.pools.worker import Send, Worker
from kfm_server.turns.times import timestamp

HELLO_SECONDS: Final = 10.0
"""How long a stream may take to say hello."""
MOST_UNREAD: Final = 10_000
"""Messages that wait for a worker that does not read: then its stream ends."""
MAX_MESSAGE: Final = 4096
"""Longest message of a worker's failure that is kept, in characters."""
_LONGEST_US: Final = 366 * 24 * 3600 * 1_000_000
"""Longest time that a worker is believed to have run an attempt: what no Duration can say ends no session."""
_STATUSES = (
    ev.STEP_STATUS_SUCCEEDED,
    ev.STEP_STATUS_FAILED,
    ev.STEP_STATUS_CANCELLED,
    ev.STEP_STATUS_UNKNOWN,
)


class Tools(Protocol):
    """Where workers' tools are announced."""

    async def announce(self, pool: str, tools: Sequence[pb.ToolDefinition]) -> None:
        """Offer them. Raises ToolInvalid or Unavailable."""
        ...


class WorkerService:
    """The bodies of kfm.worker.v1.WorkerService, by the names of its RPCs."""

    SERVICE = "kfm.worker.v1.WorkerService"

    def __init__(
        self,
        connections: Connections,
        tools: Tools,
        *,
        version: str,
        schema_release: str,
        max_message_bytes: int,
    ) -> None:
        """`max_message_bytes`: what workers are told that a message may hold."""
        self._connections = connections
        self._tools = tools
        self._version = version
        self._schema_release = schema_release
        self._max_message_bytes = max_message_bytes

    async def Work(
        self, call: Call, requests: AsyncIterator[pb.WorkRequest]
    ) -> AsyncGenerator[pb.WorkResponse, None]:
        """One worker, from its hello to the end of its stream."""
        hello = await _hello(requests)
        await self._tools.announce(hello.pool, hello.tools)
        lease = Duration()
        lease.FromMilliseconds(int(self._connections.lease_seconds * 1000))
        yield pb.WorkResponse(
            welcome=pb.Welcome(
                schema_release=self._schema_release,
                lease=lease,
                version=self._version,
                max_message_bytes=self._max_message_bytes,
                now=timestamp(self._connections.now_us()),
            )
        )
        outbox = asyncio.Queue[pb.WorkResponse | Exception | None]()

        def send(response: pb.WorkResponse) -> None:
            if outbox.qsize() < MOST_UNREAD:
                outbox.put_nowait(response)
            elif worker.send is send:
                self._connections.disconnect(worker, send)
                outbox.put_nowait(
                    Overloaded(f"More than {MOST_UNREAD} messages wait: the worker reads too slowly.")
                )

        worker = self._connections.connect(hello, send, is_process=call.at_owner)
        listening = asyncio.create_task(
            self._listen(worker, send, requests, outbox), name=f"worker {worker.name}"
        )
        try:
            while (said := await outbox.get()) is not None:
                if isinstance(said, Exception):
                    raise said
                yield said
                if said.HasField("leaving"):
                    return
        finally:
            self._connections.disconnect(worker, send)
            listening.cancel()
            await asyncio.wait((listening,))

    async def _listen(
        self,
        worker: Worker,
        send: Send,
        requests: AsyncIterator[pb.WorkRequest],
        outbox: asyncio.Queue[pb.WorkResponse | Exception | None],
    ) -> None:
        try:
            async for request in requests:
                if worker.send is not send:
                    return  # the stream is over: what was told on it is told again on the next
                self._take(worker, request)
        except Exception as error:
            outbox.put_nowait(error)
        else:
            outbox.put_nowait(None)

    def _take(self, worker: Worker, request: pb.WorkRequest) -> None:
        self._connections.heard(worker)
        match request.WhichOneof("message"):
            case "heartbeat":
                self._connections.heartbeat(worker, request.heartbeat.running)
            case "delta":
                self._connections.delta(worker, request.delta.ref, clean_text(request.delta.progress))
            case "result":
                self._connections.result(worker, request.result.ref, result_of(request.result))
            case "decline":
                self._connections.decline(worker, request.decline.ref, clean_text(request.decline.reason))
            case "capacity":
                self._connections.capacity(worker, request.capacity.capacity)
            case "hello":
                raise invalid([("hello", "hello.once", "a worker says hello once on a stream")])
            case _:
                pass  # of a newer worker: heard, and no more


async def _hello(requests: AsyncIterator[pb.WorkRequest]) -> pb.Hello:
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            first = await anext(requests, None)
    except TimeoutError:
        first = None
    if first is None or not first.HasField("hello"):
        raise invalid([("hello", "hello.first", f"comes first, within {HELLO_SECONDS:.0f} s")])
    if not first.hello.pool or not first.hello.worker:
        raise invalid([("hello.pool", "hello.names", "a hello names a pool and a worker")])
    return first.hello


def result_of(told: pb.LeaseResult) -> AttemptResult:
    """What a worker says that an attempt came to, made fit to be recorded: what cannot be kept is a failure."""
    run_time_us = min(max(0, told.run_time.ToMicroseconds()), _LONGEST_US)
    if told.status == ev.STEP_STATUS_SUCCEEDED:
        try:
            output = sanitised_json(parse_json(told.output_json))
        except ValueError as error:
            failure = Failure("REASON_TOOL_FAILED", f"The worker's output is {error}")
            return AttemptResult(ev.STEP_STATUS_FAILED, failure=failure, run_time_us=run_time_us)
        return AttemptResult(ev.STEP_STATUS_SUCCEEDED, output, run_time_us=run_time_us)
    status = told.status if told.status in _STATUSES else ev.STEP_STATUS_FAILED
    error = told.error
    failure = Failure(
        error.reason if error.reason in ERROR_CLASSES else "REASON_TOOL_FAILED",
        clean_text(error.message)[:MAX_MESSAGE] or "The worker gave no reason.",
        error.retryable,
        {
            clean_text(name)[:128]: clean_text(value)[:1024]
            for name, value in list(error.metadata.items())[:32]
        },
    )
    return AttemptResult(status, failure=failure, run_time_us=run_time_us)
