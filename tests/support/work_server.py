"""A WorkerService whose every word the test says: the other side of the protocol that workers speak."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
from kfm.catalogue.errors import KfmError
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb
from kfm.worker.v1 import worker_service_pb2_grpc as rpc
from kfm_server.doors.grpc.errors import to_status

SECONDS = 30.0
"""Longest wait for what a worker says."""


@dataclass
class Session:
    """One stream of a worker, after its hello."""

    hello: pb.Hello
    metadata: dict[str, Any]
    said: asyncio.Queue[pb.WorkRequest] = field(default_factory=asyncio.Queue[pb.WorkRequest])
    """Everything but heartbeats."""
    heartbeats: asyncio.Queue[pb.Heartbeat] = field(default_factory=asyncio.Queue[pb.Heartbeat])
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The worker has gone, or the test has ended the stream."""
    _to_say: asyncio.Queue[pb.WorkResponse | None] = field(
        default_factory=asyncio.Queue[pb.WorkResponse | None]
    )

    def say(self, **message: Any) -> None:
        """Send one response: `say(cancel=pb.Cancel(...))`."""
        self._to_say.put_nowait(pb.WorkResponse(**message))

    def end(self) -> None:
        """End the stream with status OK."""
        self._to_say.put_nowait(None)

    async def next_to_say(self) -> pb.WorkResponse | None:
        """What the servicer sends next."""
        return await self._to_say.get()

    def lease(self, lease: pb.Lease) -> pb.AttemptRef:
        """Hand it out; answers its reference."""
        self.say(lease=lease)
        return lease.ref

    def acknowledge(self, ref: pb.AttemptRef, *, accepted: bool = True) -> None:
        """Say that its result was dealt with."""
        self.say(ack=pb.Ack(ref=ref, accepted=accepted))

    async def hears(self, kind: str) -> Any:
        """The next request that is no heartbeat; AssertionError if it is of another kind."""
        async with asyncio.timeout(SECONDS):
            request = await self.said.get()
        assert request.WhichOneof("message") == kind, request
        return getattr(request, kind)

    async def hears_heartbeat(self) -> list[str]:
        """The step keys of the next heartbeat."""
        async with asyncio.timeout(SECONDS):
            return [ref.step_key for ref in (await self.heartbeats.get()).running]


class WorkServer(rpc.WorkerServiceServicer):
    """The servicer on a port of loopback, which it keeps over restarts."""

    def __init__(self, lease_seconds: float = 60.0, max_message_bytes: int = 0) -> None:
        """`lease_seconds` and `max_message_bytes` are what it welcomes with."""
        self.welcome = pb.Welcome(schema_release="1.3.0", version="test", max_message_bytes=max_message_bytes)
        self.welcome.lease.FromMilliseconds(int(lease_seconds * 1000))
        self.refusal: KfmError | None = None
        """What every hello is refused with."""
        self.unsaid = 0
        """So many streams end as a client sees it whose hello met the end: with gRPC's own INTERNAL."""
        self.streams = 0
        self.hellos = asyncio.Semaphore(0)
        """One for each stream."""
        self._sessions: asyncio.Queue[Session] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port}"

    async def start(self) -> "WorkServer":
        """Listen; again at the same port."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        rpc.add_WorkerServiceServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Cut every stream and listen no more."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    async def session(self) -> Session:
        """The next stream."""
        async with asyncio.timeout(SECONDS):
            return await self._sessions.get()

    async def Work(self, request_iterator: Any, context: Any) -> None:
        """One stream."""
        self.hellos.release()
        self.streams += 1
        if self.streams <= self.unsaid:
            await context.abort(grpc.StatusCode.INTERNAL, "Internal error from Core")
        if self.refusal is not None:
            await context.abort(*to_status(self.refusal, "r1"))
        first = await context.read()
        session = Session(first.hello, dict(context.invocation_metadata()))
        await context.write(pb.WorkResponse(welcome=self.welcome))
        self._sessions.put_nowait(session)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(_listen(context, session))
            try:
                while (response := await session.next_to_say()) is not None:
                    await context.write(response)
            finally:
                session.ended.set()
                listening.cancel()


async def _listen(context: Any, session: Session) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:  # pyright: ignore[reportAttributeAccessIssue]
        if request.HasField("heartbeat"):
            session.heartbeats.put_nowait(request.heartbeat)
        else:
            session.said.put_nowait(request)
    session.end()


def lease(
    key: str,
    tool: str,
    arguments_json: str = "{}",
    *,
    start_within: float = 10.0,
    timeout: float = 30.0,
    effect: types.EffectContract = types.EFFECT_CONTRACT_IDEMPOTENT,
    **fields: Any,
) -> pb.Lease:
    """A lease of the step `key`'s first attempt; seconds."""
    ref = pb.AttemptRef(session_id="s", turn_id="t", step_key=key, attempt=1, epoch=7)
    made = pb.Lease(
        ref=ref, tool=tool, arguments_json=arguments_json, key=f"t/{key}", effect=effect, **fields
    )
    made.start_within.FromMilliseconds(int(start_within * 1000))
    made.timeout.FromMilliseconds(int(timeout * 1000))
    return made
