"""FT13: a client that loses its stream again and again sees every event once, in order (I7)."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from xenocomm import Client, Outcome, TurnHandle

from tests.faults.conftest import Report
from tests.faults.work import amount
from tests.support.live import LiveServer
from tests.support.plans import call, given

STEPS = 24


class Wire:
    """A TCP relay in front of a server, whose connections can be cut."""

    def __init__(self, endpoint: str) -> None:
        self._host, _, self._port = endpoint.rpartition(":")
        self._open: set[asyncio.StreamWriter] = set()
        self.endpoint = ""
        self.cuts = 0

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncGenerator["Wire"]:
        """Relay while the context lasts."""
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.endpoint = f"{host}:{port}"
        try:
            yield self
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        self.cuts += 1
        for writer in self._open:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._host, int(self._port))
        self._open |= {writer, up_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, up_writer))
                group.create_task(_copy(up_reader, writer))
        except* OSError:
            pass
        finally:
            self._open -= {writer, up_writer}
            writer.transport.abort()
            up_writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


@pytest.mark.requirement("R7", "R8", "E5", "FT13", "I4", "I7")
async def test_a_client_that_is_cut_off_in_the_stream_goes_on_from_its_last_event(
    tmp_path: Path, report: Report
) -> None:
    most = amount("KFM_TEST_DISCONNECTS", 500, 50)
    draw = random.Random(13)
    server = LiveServer(
        tmp_path / "home",
        tools="tests.support.ledger:TOOLS",
        environment={"LEDGER_FILE": str(tmp_path / "ledger.jsonl")},
    )
    try:
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(110), Wire(server.grpc).serve() as wire, Client(wire.endpoint) as kfm:
            left = turns = 0
            while left + wire.cuts < most:
                steps = [call("s0", "ledger_idempotent")]
                steps += [call(f"s{i}", "ledger_idempotent", f"s{i - 1}") for i in range(1, STEPS)]
                turn = await kfm.turns.start(given(*steps))  # it runs while it is read
                ids, stops = await read_in_pieces(turn, wire, draw)
                left += stops
                turns += 1
                assert (await turn.result()).outcome == Outcome.SUCCEEDED
                stored = [e async for e in kfm.turns.history(turn.id)]
                assert [e.sequence for e in stored] == list(range(1, len(stored) + 1))
                assert ids == [e.event_id for e in stored]
    finally:
        await asyncio.to_thread(server.stop)
    report(turns=turns, streams_left=left, connections_cut=wire.cuts)


async def read_in_pieces(turn: TurnHandle, wire: Wire, draw: random.Random) -> tuple[list[str], int]:
    """Read to the end, losing the stream after a drawn number of events: by leaving it, or by a cut underneath.

    Answers the event ids in the order in which they came, and how often the stream was left.
    """
    ids: list[str] = []
    stops = 0
    while True:
        budget = draw.randint(1, 3)
        async with contextlib.aclosing(turn.updates(after=len(ids))) as updates:
            async for update in updates:
                if update.event is None:
                    continue
                ids.append(update.event.event_id)
                budget -= 1
                if budget <= 0 and draw.random() < 0.2:
                    wire.cut()  # this reader comes back by itself
                    budget = draw.randint(1, 3)
                elif budget <= 0:
                    stops += 1
                    break
            else:
                return ids, stops
