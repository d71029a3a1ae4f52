"""A worker's streams, one after the other: each is opened again when it breaks, and cuts nothing of what runs."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import grpc
import structlog
from kfm.worker.v1 import worker_service_pb2 as pb
from kfm.worker.v1 import worker_service_pb2_grpc as rpc
from xenocomm._gen import errors
from xenocomm._gen.errors import XenocommError
from xenocomm.failures import from_rpc
from xenocomm.transport import pause_s

from kfm_server import failpoints
from kfm_server.context import AT_OWNER
from kfm_server.worker.lease import that_fits
from kfm_server.worker.leases import Leases

log = structlog.get_logger(__name__)
_BEFORE_RESULT = failpoints.declare("worker.result.before")
_AFTER_RESULT = failpoints.declare("worker.result.after")
_BEFORE_HEARTBEAT = failpoints.declare("worker.heartbeat.before")

WELCOME_SECONDS = 10.0
"""How long a connection and its welcome may take."""
REFUSAL_SECONDS = 1.0
"""How long a hello is held back for a refusal, after a stream that ended without telling why."""
MOST_BEHIND = 64
"""Requests that wait to be sent; deltas are dropped beyond it."""
_STEADY_SECONDS = 2.0
"""A stream that stood for so long was no failed attempt: the next one is opened soon."""
_UNANSWERED_LEASES = 1
"""A result without an answer is told again after so many lease times: its step may have another owner by then."""
_ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
"""What writing to a stream that has ended raises; reading tells why it ended."""
_MESSAGE_BYTES = 64 * 1024 * 1024
_OPTIONS = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
REFUSALS = (
    errors.InvalidArgument,
    errors.MalformedRequest,
    errors.ToolInvalid,
    errors.Unauthenticated,
    errors.PermissionDenied,
    errors.Unimplemented,
)
"""What a server says that no other attempt changes: it ends the worker."""


class _Unsaid(errors.Unavailable):
    """The stream ended, and gRPC told its own status in place of the server's: it was sending at that moment."""


class Link:
    """At most one stream at a time, with one server of those that are known: any of them reaches every session."""

    def __init__(
        self,
        endpoints: Sequence[str],
        hello: Callable[[], pb.Hello],
        leases: Leases,
        token: str,
        roots: bytes | None,
        *,
        at_owner: bool = False,
    ) -> None:
        """`endpoints`: one server after the other is tried; `hello`: what to say first, now; `roots`: as in
        xenocomm's Connection.

        `at_owner`: a process of the server says it, on behalf of its workers.
        """
        self.endpoint = endpoints[0]
        self._endpoints = itertools.cycle(endpoints)
        self.open = False
        self._hello = hello
        self._leases = leases
        self._metadata = (
            *((("authorization", f"Bearer {token}"),) if token else ()),
            *(((AT_OWNER, "1"),) if at_owner else ()),
        )
        self._roots = roots
        self._outbox: asyncio.Queue[pb.WorkRequest] = asyncio.Queue()
        self._max_bytes = 0
        self._unsaid = False
        """Why the stream before ended is not known."""

    def tell(self, request: pb.WorkRequest) -> None:
        """As Line."""
        if self.open:
            self._outbox.put_nowait(request)

    def tell_at_best(self, request: pb.WorkRequest) -> None:
        """As Line."""
        if self._outbox.qsize() < MOST_BEHIND:
            self.tell(request)

    async def run(self) -> None:
        """Keep a stream for ever. Raises one of REFUSALS, when the server refuses the worker."""
        loop = asyncio.get_running_loop()
        attempt, said = 0, set[str]()
        while True:
            began, self.endpoint = loop.time(), next(self._endpoints)
            why = await self._stream()
            if isinstance(why, REFUSALS):
                raise why
            steady = loop.time() - began > _STEADY_SECONDS
            attempt = 0 if steady else attempt + 1
            said = set() if steady else said
            if why.message not in said:
                said.add(why.message)
                log.warning("worker_disconnected", endpoint=self.endpoint, reason=why.reason, why=why.message)
            await asyncio.sleep(pause_s(attempt, why))

    async def _stream(self) -> XenocommError:
        """One stream, to its end; answers why it ended."""
        self._outbox = asyncio.Queue()
        try:
            async with self._channel() as channel:
                return await self._session(rpc.WorkerServiceStub(channel).Work(metadata=self._metadata))
        except XenocommError as error:
            self._unsaid = isinstance(error, _Unsaid)
            return error
        except TimeoutError:
            return errors.Unavailable(f"{self.endpoint} said no welcome within {WELCOME_SECONDS:g} s")
        finally:
            self.open = False

    async def _session(self, call: Any) -> XenocommError:
        asked_us = self._leases.now_us()
        async with asyncio.timeout(WELCOME_SECONDS):
            first = await self._greet(call)
        if first is None or not first.HasField("welcome"):
            return errors.Unavailable(f"{self.endpoint} began without a welcome")
        welcome = first.welcome
        self._max_bytes, self.open = welcome.max_message_bytes, True
        if welcome.HasField("now"):
            self._leases.set_clock(asked_us, welcome.now.ToMicroseconds())
        log.info(
            "worker_connected", endpoint=self.endpoint, server=welcome.version, release=welcome.schema_release
        )
        if not self._leases.capacity:
            self.tell(pb.WorkRequest(capacity=pb.Capacity(capacity=0)))
        self._tell_results(0)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._write(call)),
                group.create_task(self._beat(call, welcome.lease.ToTimedelta().total_seconds())),
            ]
            try:
                return await self._listen(call)
            finally:
                call.cancel()
                for task in tasks:
                    task.cancel()

    async def _greet(self, call: Any) -> pb.WorkResponse | None:
        """Say hello, and hear the answer. A refusal that met the hello before was lost by that: now it may come first."""
        reading = asyncio.create_task(self._read(call))
        try:
            if self._unsaid:
                self._unsaid = False
                await asyncio.wait((reading,), timeout=REFUSAL_SECONDS)
            with contextlib.suppress(*_ENDED):
                await call.write(pb.WorkRequest(hello=self._hello()))
            return await reading
        finally:
            reading.cancel()

    async def _listen(self, call: Any) -> XenocommError:
        try:
            while (said := await self._read(call)) is not None:
                match said.WhichOneof("message"):
                    case "lease":
                        self._leases.take(said.lease)
                    case "cancel":
                        self._leases.cancel(said.cancel.ref, said.cancel.reason)
                    case "ack":
                        self._leases.acknowledged(said.ack)
                    case "leaving":
                        return errors.Unavailable(f"the server is leaving: {said.leaving.reason}")
                    case _:  # of a newer server
                        pass
        except XenocommError as error:
            return error
        return errors.Unavailable("the server ended the stream")

    async def _write(self, call: Any) -> None:
        with contextlib.suppress(*_ENDED):
            while True:
                request = await self._outbox.get()
                if not request.HasField("result"):
                    await call.write(request)
                    continue
                failpoints.hit(_BEFORE_RESULT)
                await call.write(pb.WorkRequest(result=that_fits(request.result, self._max_bytes)))
                failpoints.hit(_AFTER_RESULT)

    async def _beat(self, call: Any, lease_seconds: float) -> None:
        while True:
            await asyncio.sleep(lease_seconds / 3)
            if self._leases.clock_was_set:
                log.warning("worker_clock_was_set")
                call.cancel()  # the next welcome tells the server's time again
                return
            failpoints.hit(_BEFORE_HEARTBEAT)
            self.tell(pb.WorkRequest(heartbeat=pb.Heartbeat(running=self._leases.refs())))
            self._tell_results(_UNANSWERED_LEASES * lease_seconds)

    def _tell_results(self, unanswered_for: float) -> None:
        for result in self._leases.results(unanswered_for):
            self.tell(pb.WorkRequest(result=result))

    async def _read(self, call: Any) -> pb.WorkResponse | None:
        """What comes next; None at the end of the stream. Raises XenocommError."""
        try:
            said = await call.read()
        except grpc.aio.AioRpcError as error:
            found = from_rpc(error, self.endpoint)
            if found.metadata.get("grpc_status") == "INTERNAL":
                raise _Unsaid(f"{self.endpoint} ended the stream, and its reason was lost") from None
            raise found from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # So gRPC tells a status of CANCELLED.
            raise errors.Unavailable("the server or the transport cancelled the stream") from None
        return None if said is grpc.aio.EOF else said  # pyright: ignore[reportAttributeAccessIssue]

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncGenerator[grpc.aio.Channel]:
        """A channel for one stream: none waits for the back-off of one before."""
        if self._roots is None:
            channel = grpc.aio.insecure_channel(self.endpoint, options=_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(self._roots or None)
            channel = grpc.aio.secure_channel(self.endpoint, credentials, options=_OPTIONS)
        try:
            yield channel
        finally:
            await channel.close()
