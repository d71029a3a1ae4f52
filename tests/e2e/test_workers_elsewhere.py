"""Workers and several server processes on one database: one address is enough, and a process that dies cuts nothing."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from xenocomm import Client, TurnHandle
from xenocomm._gen.types import Outcome

from tests.support.ledger import read_ledger
from tests.support.live import LiveServer, a_moment
from tests.support.live_worker import LiveWorker
from tests.support.plans import Gate, call, given

pytestmark = [pytest.mark.requirement("R10"), pytest.mark.timeout(120)]
SECONDS = 30.0
TURNS = 6


class Sites:
    """Two servers on one database, and a worker."""

    def __init__(self, home: Path, database: str) -> None:
        self.home = home
        self.first = LiveServer(home / "first", database_url=database)
        self.second = LiveServer(home / "second", database_url=database)
        self.gate = Gate(home / "gate")
        self.worker: LiveWorker | None = None

    async def start(self) -> None:
        """Both servers; they share the partitions evenly once each has its own."""
        for server in (self.first, self.second):
            await asyncio.to_thread(server.start)
        for server in (self.first, self.second):
            await asyncio.to_thread(server.await_gauge, "kfm_partitions_owned", 8, SECONDS)

    async def connect(self, *servers: LiveServer) -> None:
        """The worker, with the addresses of these; both servers know its tools, the other within a second."""
        addresses = ",".join(server.grpc for server in servers)
        self.worker = LiveWorker(self.home, addresses, "w1").start()
        for server in (self.first, self.second):
            async with Client(server.grpc, timeout=SECONDS) as client, asyncio.timeout(SECONDS):
                while not (found := (await client.server.workers("gpu"))).pools or not found.workers:
                    await a_moment()

    def calls(self) -> list[str]:
        """The key of each call of the ledger's tools."""
        return [row["key"] for row in read_ledger(self.home / "ledger.jsonl")]

    async def held(self, client: Client, at: LiveServer) -> list[TurnHandle]:
        """Turns of as many sessions, whose steps all wait at the gate in the hands of the worker, which is connected there."""
        step = call("a", "ledger_once", hold=self.gate.hold)
        turns = [await client.turns.start(given(step)) for _ in range(TURNS)]
        async with Client(at.grpc, timeout=SECONDS) as beside, asyncio.timeout(SECONDS):
            while await performed(beside) < TURNS:
                await a_moment()
        return turns


@pytest.fixture
def sites(tmp_path: Path, database: str) -> Iterator[Sites]:
    sites = Sites(tmp_path, database)
    try:
        yield sites
    finally:
        if sites.worker is not None:
            sites.worker.kill()
        sites.first.kill()
        sites.second.kill()


async def performed(client: Client) -> int:
    """Attempts that the worker holds, by the process that it is connected to."""
    found = (await client.server.workers("gpu")).workers
    return sum(worker.running for worker in found if worker.worker == "w1")


async def succeed(server: LiveServer, turns: list[TurnHandle]) -> None:
    """All of them end well, asked of this server."""
    async with Client(server.grpc, timeout=SECONDS) as client:
        for turn in turns:
            done = await client.turns.attach(turn.id).result(timeout=SECONDS)
            assert done.outcome == Outcome.SUCCEEDED


async def test_a_worker_that_knows_one_process_performs_the_steps_of_all(sites: Sites) -> None:
    await sites.start()
    await sites.connect(sites.second)
    async with Client(sites.first.grpc, timeout=SECONDS) as client:
        turns = [await client.turns.start(given(call("a", "ledger_once"))) for _ in range(2 * TURNS)]
    await succeed(sites.first, turns)
    assert len(set(sites.calls())) == len(sites.calls()) == 2 * TURNS


@pytest.mark.requirement("R6", "R8")
async def test_an_owner_that_dies_cuts_nothing_of_what_workers_of_another_process_do(sites: Sites) -> None:
    await sites.start()
    await sites.connect(sites.second)
    async with Client(sites.second.grpc, timeout=SECONDS) as client:
        turns = await sites.held(client, sites.second)
        sites.first.kill()
        await asyncio.to_thread(sites.second.await_gauge, "kfm_partitions_owned", 16, SECONDS)
        sites.gate.open()
        await succeed(sites.second, turns)
    assert set(Counter(sites.calls()).values()) == {1} and len(sites.calls()) == TURNS


@pytest.mark.requirement("R6", "R8")
async def test_a_worker_whose_process_dies_goes_on_at_the_next(sites: Sites) -> None:
    await sites.start()
    await sites.connect(sites.first, sites.second)
    async with Client(sites.second.grpc, timeout=SECONDS) as client:
        turns = await sites.held(client, sites.first)
        sites.first.kill()
        sites.gate.open()
        await succeed(sites.second, turns)
    assert set(Counter(sites.calls()).values()) == {1} and len(sites.calls()) == TURNS
