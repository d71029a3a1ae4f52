"""A subscription across turns while two servers write: every event once, each session in order, whoever dies."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from kfm.event.v1 import event_service_pb2 as pb
from kfm.event.v1 import event_service_pb2_grpc as rpc
from kfm.event.v1.envelope_pb2 import Envelope
from kfm_server.runtime.following import is_end
from xenocomm import Client

from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("R11", "I7")
SECONDS = 60.0
SESSIONS = 6
TURNS = 60


@dataclass
class Seen:
    """What a subscriber that resumes by its last cursor has been told."""

    cursor: str = ""
    events: list[Envelope] = field(default_factory=list[Envelope])
    ended: set[str] = field(default_factory=set[str])
    connections: int = 0

    async def follow(self, address: str, wanted: set[str], until: int) -> None:
        """Subscribe, and again when the server goes, until so many of the turns have ended."""
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = rpc.EventServiceStub(channel)
            while len(self.ended & wanted) < until:
                self.connections += 1
                request = pb.WatchEventsRequest(cursor=self.cursor, start=pb.START_BEGINNING)
                stream = stub.WatchEvents(request, wait_for_ready=True)
                try:
                    while len(self.ended & wanted) < until:
                        response = await stream.read()
                        if response is grpc.aio.EOF:
                            break
                        self.take(response)
                except grpc.aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                finally:
                    stream.cancel()

    def take(self, response: pb.WatchEventsResponse) -> None:
        self.events += response.events
        self.ended |= {event.turn_id for event in response.events if is_end(event)}
        self.cursor = response.cursor

    def check(self, turns: set[str]) -> None:
        """Every event of the turns once, in order in its turn; a session's turns do not overlap."""
        by_turn: defaultdict[str, list[int]] = defaultdict(list)
        for event in self.events:
            by_turn[event.turn_id].append(event.sequence)
        assert turns <= by_turn.keys()
        for turn, sequences in by_turn.items():
            assert sequences == list(range(1, len(sequences) + 1)), turn


@pytest.fixture
async def servers(tmp_path: Path, database: str) -> AsyncGenerator[list[LiveServer]]:
    servers = [
        LiveServer(tmp_path / name, tools="tests.support.ledger:TOOLS", database_url=database)
        for name in ("one", "two")
    ]
    try:
        for server in servers:
            await asyncio.to_thread(server.start)
        yield servers
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)


async def _load(addresses: list[str], count: int) -> set[str]:
    """Turns of a few sessions, submitted through both servers in turn; answers their ids."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(a, timeout=SECONDS)) for a in addresses]
        turns = [
            await clients[n % len(clients)].turns.start(
                f"{n} + {n}", session_id=f"ses_{n % SESSIONS}", idempotency_key=f"turn-{n}"
            )
            for n in range(count)
        ]
        return {turn.id for turn in turns}


async def test_events_of_two_servers_are_seen_once_and_in_order_by_subscribers_of_both(
    servers: list[LiveServer],
) -> None:
    await asyncio.to_thread(_share, servers)
    seen = [Seen(), Seen()]
    async with asyncio.timeout(SECONDS):
        turns = await _load([s.grpc for s in servers], TURNS)
        async with asyncio.TaskGroup() as group:
            for server, one in zip(servers, seen, strict=True):
                group.create_task(one.follow(server.grpc, turns, len(turns)))
    for one in seen:
        one.check(turns)
    ids = [[event.event_id for event in one.events] for one in seen]
    assert sorted(ids[0]) == sorted(ids[1])
    for session in range(SESSIONS):
        mine = [[e.event_id for e in one.events if e.session_id == f"ses_{session}"] for one in seen]
        assert mine[0] == mine[1], "one order, wherever it is read"


def _share(servers: list[LiveServer]) -> None:
    """The first has every partition: kill it, so that the second takes them, and let it come back for what is written now."""
    servers[0].kill()
    servers[1].await_gauge("kfm_partitions_owned", 16, SECONDS)
    servers[0].start()


async def test_a_subscriber_of_a_server_that_is_killed_resumes_by_its_cursor(
    servers: list[LiveServer],
) -> None:
    seen = Seen()
    async with asyncio.timeout(SECONDS):
        async with asyncio.TaskGroup() as group:
            loading = group.create_task(_load([servers[0].grpc], TURNS))
            turns: set[str] = set()
            await seen.follow(servers[1].grpc, _Any(), 5)
            await asyncio.to_thread(servers[1].kill)
            restarting = group.create_task(asyncio.to_thread(servers[1].start))
            turns = await loading
            following = group.create_task(seen.follow(servers[1].grpc, turns, len(turns)))
            await restarting
            await following
    seen.check(turns)
    assert seen.connections > 1


class _Any(set[str]):
    """Every turn."""

    def __rand__(self, other: Any) -> Any:
        return other
