"""Streams between workers and servers: slow, cut, half open, or with nobody at the other end."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextvars import Context
from typing import Any, ClassVar, Protocol

import grpc
from kfm.catalogue.errors import KfmError
from kfm.worker.v1 import worker_service_pb2 as pb
from kfm_server.worker.link import Link
from xenocomm._gen import errors
from xenocomm._gen.errors import XenocommError

from tests.simulator.loop import HOST, Host

ANYWHERE = "balancer:1"
"""Some server that accepts connections; frozen ones do too."""


class Door(Protocol):
    """A server, as streams of workers find it."""

    host: Host

    @property
    def listening(self) -> bool:
        """Somebody accepts connections."""
        ...

    def work(
        self, requests: AsyncGenerator[pb.WorkRequest], *, at_owner: bool
    ) -> AsyncGenerator[pb.WorkResponse, None]:
        """WorkerService.Work."""
        ...

    def door(self, work: Any, name: str) -> asyncio.Task[Any]:
        """Run something in the server."""
        ...


class Network:
    """All streams of one simulation. It belongs to no host."""

    def __init__(self, dice: random.Random, report: Callable[[str], None]) -> None:
        self.dice = dice
        self.report = report
        self.doors: dict[str, Door] = {}
        self.streams: list[SimStream] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back, whoever asks."""
        asyncio.get_running_loop().call_later(seconds, callback, context=Context())

    def travel(self) -> float:
        """Seconds that a message takes."""
        return self.dice.choice((0.0, 0.001, 0.001, 0.02)) * self.dice.random()

    async def open(self, address: str, *, at_owner: bool) -> "SimStream":
        """Connect. Raises Unavailable."""
        await asyncio.sleep(self.travel())
        if address == ANYWHERE:
            there = [door for door in self.doors.values() if door.listening and not door.host.dead]
            door = self.dice.choice(there) if there else None
        else:
            door = self.doors.get(address)
        if door is None or door.host.dead or not door.listening:
            raise errors.Unavailable(f"nobody listens at {address}")
        client = HOST.get()
        assert client is not None
        stream = SimStream(self, door, client, at_owner)
        self.streams.append(stream)
        return stream

    def died(self, host: Host) -> None:
        """A host was killed: the others see it soon, or, of a machine that is gone, not at all."""
        for stream in [s for s in self.streams if host in (s.client, s.door.host)]:
            if stream.client is host:
                if self.dice.random() < 0.7:
                    self.later(self.dice.random() * 0.1, stream.cut_at_server)
            else:
                self.later(self.dice.random() * 0.5, stream.cut_at_client)

    def cut(self, host: Host) -> None:
        """A connection of the host breaks; each side sees it in its own time."""
        found = [s for s in self.streams if host in (s.client, s.door.host)]
        if found:
            stream = self.dice.choice(found)
            self.later(self.dice.choice((0.0, 0.3, 2.0)) * self.dice.random(), stream.cut_at_client)
            self.later(self.dice.choice((0.0, 0.3, 5.0)) * self.dice.random(), stream.cut_at_server)
            stream.broken = True


class SimStream:
    """One call of Work, as grpc.aio's stub answers it: `write`, `read`, `cancel`."""

    def __init__(self, network: Network, door: Door, client: Host, at_owner: bool) -> None:
        self.network = network
        self.door = door
        self.client = client
        self.broken = False
        """Nothing gets through any more, whoever knows it."""
        self._requests = asyncio.Queue[pb.WorkRequest | None]()
        self._responses = asyncio.Queue[pb.WorkResponse | XenocommError | Any]()
        self._serving = door.door(self._serve(at_owner), "worker stream")

    # At the worker

    async def write(self, request: pb.WorkRequest) -> None:
        """Send it; a copy may arrive twice if it is a result, as of a worker that is too eager."""
        await asyncio.sleep(self.network.travel())
        twice = request.HasField("result") and self.network.dice.random() < 0.1
        for _ in range(1 + twice):
            if not self.broken:
                self._requests.put_nowait(pb.WorkRequest.FromString(request.SerializeToString()))

    async def read(self) -> Any:
        """What comes next; EOF at the end. Raises a typed error."""
        said = await self._responses.get()
        if isinstance(said, XenocommError):
            raise said
        return said

    def cancel(self) -> None:
        """The worker leaves the stream."""
        self.broken = True
        self.network.later(self.network.travel(), self.cut_at_server)

    # In between

    def cut_at_client(self) -> None:
        """The worker sees that the stream is broken; what was on its way is lost."""
        self.broken = True
        while not self._responses.empty():
            self._responses.get_nowait()
        self._responses.put_nowait(errors.Unavailable("the connection was reset"))

    def cut_at_server(self) -> None:
        """The server sees it: its handler is cancelled."""
        self.broken = True
        if self in self.network.streams:
            self.network.streams.remove(self)
        self._serving.cancel()

    # At the server

    async def _serve(self, at_owner: bool) -> None:
        answers = self.door.work(self._asked(), at_owner=at_owner)
        last: Any = grpc.aio.EOF  # pyright: ignore[reportAttributeAccessIssue]
        try:
            async for answer in answers:
                await asyncio.sleep(self.network.travel())
                if not self.broken:
                    self._responses.put_nowait(answer)
        except KfmError as error:
            last = errors.Unavailable(error.message)
        except Exception as error:
            self.network.report(f"a worker's stream broke the server: {error!r}")
        finally:
            await answers.aclose()
            if self in self.network.streams:
                self.network.streams.remove(self)
        if not self.broken:
            self._responses.put_nowait(last)

    async def _asked(self) -> AsyncGenerator[pb.WorkRequest]:
        while (request := await self._requests.get()) is not None:
            yield request


class SimLink(Link):
    """A worker's link whose streams are simulated; all else is the real one."""

    network: ClassVar[Network]

    async def _stream(self) -> XenocommError:
        self._outbox = asyncio.Queue()
        try:
            stream = await self.network.open(self.endpoint, at_owner=len(self._metadata) > 0)
            return await self._session(stream)
        except XenocommError as error:
            return error
        except TimeoutError:
            return errors.Unavailable("no welcome came")
        finally:
            self.open = False
