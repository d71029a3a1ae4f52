"""A subscription across turns while two servers write: every event once, each session in order, whoever dies."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
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

    async def follow(self, address: str, turns: int) -> None:
        """Subscribe, and again when the server goes, until so many turns have ended."""
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = rpc.EventServiceStub(channel)
            while len(self.ended) < turns:
                self.connections += 1
                request = pb.WatchEventsRequest(cursor=self.cursor, start=pb.START_BEGINNING)
                stream = stub.WatchEvents(request, wait_for_ready=True)
                try:
                    async for response in stream:
                        self.take(response)
                        if len(self.ended) >= turns:
                            break
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


async def _load(address: str) -> set[str]:
    """Turns of a few sessions; answers their ids."""
    async with Client(address, timeout=SECONDS) as kfm:
        turns = [
            await kfm.turns.start(f"{n} + {n}", session_id=f"ses_{n % SESSIONS}", idempotency_key=f"turn-{n}")
            for n in range(TURNS)
        ]
        return {turn.id for turn in turns}


async def test_every_event_of_two_servers_is_seen_once_and_in_order_though_the_first_is_killed(
    servers: list[LiveServer],
) -> None:
    first, second = servers
    early, at_first, at_second = Seen(), Seen(), Seen()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        group.create_task(at_second.follow(second.grpc, TURNS))
        group.create_task(at_first.follow(first.grpc, TURNS))
        loading = group.create_task(
            _load(second.grpc)
        )  # the owner is the first: it writes what the second takes in
        await early.follow(second.grpc, 5)
        await asyncio.to_thread(first.kill)
        await asyncio.to_thread(second.await_gauge, "kfm_partitions_owned", 16, SECONDS)
        await asyncio.to_thread(first.start)
    turns = loading.result()
    at_second.check(turns)
    at_first.check(turns)
    assert at_first.connections > 1
    assert at_second.connections == 1
    for n in range(SESSIONS):
        orders = [[e.event_id for e in s.events if e.session_id == f"ses_{n}"] for s in (at_first, at_second)]
        assert orders[0] == orders[1], "one order, wherever it is read"
