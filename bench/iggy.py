"""The broker of a bench, as KFM_IGGY_* name it: a stream of its own, and the wheel without anything of ours around it."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress

from apache_iggy import Consumer, IggyClient, PollingStrategy, SendMessage
from kfm_server.bus.iggy.client import CLOSING, client_of, connection
from kfm_server.bus.iggy.topics import make_topics
from kfm_server.ports.broker import BrokerUnavailable
from kfm_server.ports.iggy_settings import IggySettings
from kfm_server.settings import Config

TOPIC = "raw"
SEE_SECONDS = 10.0


def settings() -> IggySettings:
    """Where the broker is, and how it is reached."""
    return Config.load().settings.iggy


@contextmanager
def own_stream() -> Generator[str]:
    """A stream of which nothing is left from another run, nor after this one; KFM_IGGY_STREAM names it meanwhile."""
    before = os.environ.get("KFM_IGGY_STREAM")
    name = os.environ["KFM_IGGY_STREAM"] = f"kfm-bench-{os.getpid()}-{time.time_ns() // 1_000_000}"
    try:
        yield name
    finally:
        with suppress(BrokerUnavailable):
            asyncio.run(_delete(settings()))
        del os.environ["KFM_IGGY_STREAM"]
        if before is not None:
            os.environ["KFM_IGGY_STREAM"] = before


async def _delete(of: IggySettings) -> None:
    async with connection(of) as made:
        if await made.call(lambda client: client.get_stream(of.stream)) is not None:
            await made.call(lambda client: client.delete_stream(of.stream))


class Raw:
    """The wheel as it is: one client sends, another polls as fast as it goes, on one partition as durable as ours."""

    def __init__(self, stream: str, sender: IggyClient, reader: IggyClient) -> None:
        self._stream, self._sender, self._reader = stream, sender, reader
        self._seen = 0

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncGenerator["Raw"]:
        """Have the topic there, and both clients connected."""
        of = settings()
        async with connection(of) as made:
            await make_topics(made, of, (TOPIC,), 1)
        sender, reader = client_of(of), client_of(of)
        await sender.connect()
        await reader.connect()
        try:
            yield cls(of.stream, sender, reader)
        finally:
            del sender, reader
            await asyncio.sleep(CLOSING)

    async def once(self, body: bytes) -> float:
        """Seconds from before the send until the reader, which polls already, has the message."""
        async with asyncio.timeout(SEE_SECONDS), asyncio.TaskGroup() as group:
            seen = group.create_task(self._next())
            await asyncio.sleep(0)
            begun = time.perf_counter()
            await self._sender.send_messages(self._stream, TOPIC, 0, [SendMessage(body)])
        return seen.result() - begun

    async def _next(self) -> float:
        """When the next message was there."""
        while True:
            found = await self._reader.poll_messages(
                self._stream,
                TOPIC,
                consumer=Consumer.Single("raw"),
                polling_strategy=PollingStrategy.Offset(self._seen),
                count=10,
                auto_commit=False,
                partition_id=0,
            )
            if found:
                self._seen = found[-1].offset() + 1
                return time.perf_counter()
