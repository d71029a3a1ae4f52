"""Every process is restarted, one by one, under load: no client sees an error, and no turn is lost."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from xenocomm import Client

from tests.faults.auditor import audit
from tests.faults.conftest import Report
from tests.faults.test_killed_under_load import check_ended
from tests.faults.work import Watched, amount, follow, mixed
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("R8", "R10", "I1", "I2", "I3", "I4", "I5", "I6", "I7")
ROLES = {"front": "api", "both": "api,runtime", "back": "runtime"}
PARTITIONS = 16
WORKERS = 4
"""Clients of each kind: of all addresses, and of one address alone for each that answers clients."""


@dataclass
class Load:
    """Clients that each run one turn after the other, until `enough`; whatever one of them raises ends the test."""

    endpoints: list[str]
    watched: list[Watched] = field(default_factory=list[Watched])
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        """Until every turn has ended or needs a review."""
        async with asyncio.TaskGroup() as running:
            for endpoint in (",".join(self.endpoints), *self.endpoints):
                for number in range(WORKERS):
                    name = f"{endpoint}-{number}"
                    running.create_task(self._worker(endpoint, name), name=name)

    async def _worker(self, endpoint: str, name: str) -> None:
        async with Client(endpoint, timeout=30) as kfm:
            number = 0
            while not self.enough.is_set():
                watched = Watched()
                self.watched.append(watched)
                message, _ = mixed(random.Random(f"{name} {number}"), number)
                await follow(kfm, f"{name}-{number}", message, watched, 60.0)
                number += 1
                async with self._more:
                    self._more.notify_all()

    @property
    def settled(self) -> int:
        """Turns that have ended, or need a review."""
        return sum(w.settled.is_set() for w in self.watched)

    async def flows(self) -> None:
        """Wait, bounded, until every client could have run another turn or two."""
        wanted = self.settled + 2 * WORKERS * (1 + len(self.endpoints))
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: self.settled >= wanted)


@asynccontextmanager
async def loaded(
    directory: Path, database: str, ledger: Path
) -> AsyncGenerator[tuple[dict[str, LiveServer], Load]]:
    """The processes, and clients at work; on leaving, all turns have settled and the processes have stopped well."""
    servers = {
        name: LiveServer(
            directory / name,
            tools="tests.support.ledger:TOOLS",
            database_url=database,
            environment={"LEDGER_FILE": str(ledger), "KFM_ROLE": role},
        )
        for name, role in ROLES.items()
    }
    try:
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers.values()))
        load = Load([servers[name].grpc for name, role in ROLES.items() if "api" in role])
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(), name="load")
            await load.flows()
            yield servers, load
            load.enough.set()
        for server in servers.values():
            assert await asyncio.to_thread(server.stop) == 0, server.log_tail()
    finally:
        for server in servers.values():
            server.kill()


async def taken_over(servers: list[LiveServer]) -> None:
    """Wait, bounded, until these own every partition."""
    async with asyncio.timeout(30):
        while sum([await asyncio.to_thread(s.gauge, "kfm_partitions_owned") for s in servers]) < PARTITIONS:
            pass


@pytest.mark.timeout(300)
async def test_a_rolling_restart_is_seen_by_no_client(tmp_path: Path, database: str, report: Report) -> None:
    ledger, slowest = tmp_path / "ledger.jsonl", 0.0
    async with loaded(tmp_path, database, ledger) as (servers, load):
        for _ in range(amount("KFM_TEST_ROUNDS", 3, 1)):
            for server in servers.values():
                asked = time.monotonic()
                assert await asyncio.to_thread(server.stop) == 0, server.log_tail()
                await asyncio.to_thread(server.start)
                slowest = max(slowest, time.monotonic() - asked)
                await load.flows()
    turns = await audit(database, ledger, {w.turn_id: w.sequences for w in load.watched})
    assert set(turns) == {w.turn_id for w in load.watched}, "a key started more than one turn"
    assert all(w.ended for w in load.watched), "no step was cut, so none needs a review"
    for turn in turns.values():
        check_ended(turn)
    report(turns=len(turns), slowest_restart_s=round(slowest, 2))


@pytest.mark.timeout(300)
async def test_processes_killed_one_by_one_lose_no_turn(
    tmp_path: Path, database: str, report: Report
) -> None:
    ledger, slowest = tmp_path / "ledger.jsonl", 0.0
    async with loaded(tmp_path, database, ledger) as (servers, load):
        for _ in range(amount("KFM_TEST_ROUNDS", 3, 1)):
            for name, server in servers.items():
                killed = time.monotonic()
                await asyncio.to_thread(server.kill)
                await taken_over([s for other, s in servers.items() if other != name])
                slowest = max(slowest, time.monotonic() - killed)
                await asyncio.to_thread(server.start)
                await load.flows()
    turns = await audit(database, ledger, {w.turn_id: w.sequences for w in load.watched})
    assert set(turns) == {w.turn_id for w in load.watched}, "a key started more than one turn"
    for turn in turns.values():
        check_ended(turn)
    report(
        turns=len(turns), needs_review=sum(not w.ended for w in load.watched), takeover_s=round(slowest, 2)
    )
