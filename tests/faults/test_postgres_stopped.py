"""FT4: the database stops at once, again and again, for up to two seconds, under sixteen turns in flight.

As many turns as KFM_TEST_TURNS says; replay another course with KFM_TEST_SEED.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kfm_server.journal import embedded
from kfm_server.turns.state import StepPhase
from xenocomm import Client, Part, TurnNeedsPerson, errors
from xenocomm._gen.types import Outcome, Turn
from xenocomm.failures import TRANSIENT

from tests.faults.auditor import audit
from tests.faults.conftest import Report
from tests.faults.test_killed_under_load import check_ended
from tests.faults.work import amount, ledger_server, mixed, side_by_side

IN_FLIGHT = 16
IMPATIENT_SECONDS = 0.4
EVERY_TURNS = (4, 20)
"""A stop comes when so many more turns have ended: turns are too fast for the 5 to 40 s of the plan."""
UP_SECONDS = (1.0, 3.0)
"""And not before: a database that is never there for longer than its clients take to find it starves them."""
DOWN_SECONDS = (0.0, 2.0)


@dataclass
class Clients:
    """Sixteen clients with one turn each at a time. Every second one gives up after 0.4 s, counts it, and asks again."""

    endpoint: str
    seed: int
    most: int
    results: dict[str, tuple[Turn, tuple[str, ...]]] = field(
        default_factory=dict[str, tuple[Turn, tuple[str, ...]]]
    )
    refusals: Counter[str] = field(default_factory=Counter[str])
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """Released by every turn that ends."""
    longest_s: float = 0.0
    _number: int = 0

    async def run(self) -> None:
        """Until every turn has ended or needs a review."""
        await side_by_side(IN_FLIGHT, self._client)
        self.over.set()

    async def _client(self, client: int) -> None:
        patience = IMPATIENT_SECONDS if client % 2 else 60.0
        async with Client(self.endpoint, timeout=patience) as kfm:
            while self._number < self.most:
                number = self._number
                self._number += 1
                message, tools = mixed(random.Random(f"{self.seed}:{number}"), number)
                began = time.monotonic()
                async with asyncio.timeout(60):
                    turn = await self._turn(kfm, f"k{number}", message)
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                assert turn.turn_id not in self.results, "two keys made one turn"
                self.results[turn.turn_id] = turn, tools
                self.ended.release()

    async def _turn(self, kfm: Client, key: str, message: str) -> Turn:
        while True:
            try:
                handle = await kfm.turns.start([Part(data_json=message)], idempotency_key=key)
                return await handle.result()
            except TurnNeedsPerson as waiting:
                return waiting.turn
            except (*TRANSIENT, errors.DeadlineExceeded) as refused:
                self.refusals[type(refused).__name__] += 1


async def stop_again_and_again(
    postgres: embedded.EmbeddedPostgres, draw: random.Random, clients: Clients
) -> int:
    """Immediate stops, one after every few turns, until all turns but the last few have ended; answers how many."""
    stops = 0
    loop = asyncio.get_running_loop()
    up_until = loop.time()
    while len(clients.results) + EVERY_TURNS[1] < clients.most:
        while not clients.ended.locked():
            await clients.ended.acquire()  # it ended before
        for _ in range(draw.randint(*EVERY_TURNS)):
            await clients.ended.acquire()
        await at_most(up_until - loop.time(), clients.over)
        postgres.process.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(postgres.process.wait)
        stops += 1
        await at_most(draw.uniform(*DOWN_SECONDS), clients.over)
        postgres.process = await postgres.again()
        postgres.pid = postgres.process.pid
        up_until = loop.time() + draw.uniform(*UP_SECONDS)
    return stops


async def at_most(seconds: float, over: asyncio.Event) -> None:
    """Until then, or until all turns are over."""
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        pass


@pytest.mark.requirement("R8", "E1", "FT4", "I1", "I2", "I3", "I4")
@pytest.mark.timeout(1800)
async def test_clients_wait_or_are_told_but_never_get_a_wrong_result_while_postgres_stops_and_starts(
    tmp_path: Path, report: Report
) -> None:
    most = amount("KFM_TEST_TURNS", 300, 150, full=2000)
    seed = int(os.environ.get("KFM_TEST_SEED", "4"))
    print(f"seed {seed}")
    ledger = tmp_path / "ledger.jsonl"
    postgres = await embedded.start(tmp_path / "database")
    server = ledger_server(tmp_path / "home", ledger, postgres.dsn)
    try:
        await asyncio.to_thread(server.start)
        clients = Clients(server.grpc, seed, most)
        began = time.monotonic()
        async with asyncio.TaskGroup() as drill:
            drill.create_task(clients.run(), name="clients")
            stopping = drill.create_task(
                stop_again_and_again(postgres, random.Random(seed), clients), name="stops"
            )
        took = time.monotonic() - began
        assert server.process is not None and server.process.poll() is None, server.log_tail()
        code = await asyncio.to_thread(server.stop)
        assert code == 0, server.log_tail()
        turns = await audit(postgres.dsn, ledger)
    finally:
        await asyncio.to_thread(server.kill)
        await postgres.stop()
    assert set(turns) == set(clients.results), "what was acknowledged is what is there"
    for turn in turns.values():
        check_ended(turn)
        told, tools = clients.results[turn.turn_id]
        if told.outcome == Outcome.SUCCEEDED:
            assert [s.output_json for s in told.steps] == [s.output_json for s in turn.steps.values()]
            assert all(f'"{tool} done"' in s.output_json for tool, s in zip(tools, told.steps, strict=True))
    reviews = sum(
        any(s.phase == StepPhase.STEP_STATE_NEEDS_REVIEW for s in t.steps.values()) for t in turns.values()
    )
    report(seed=seed, turns=len(turns), stops=stopping.result(), took_s=round(took, 1))
    report(longest_turn_s=round(clients.longest_s, 2), needs_review=reviews, refusals=dict(clients.refusals))
