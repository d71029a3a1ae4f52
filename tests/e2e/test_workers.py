"""Steps that workers perform, in processes of their own: a real server, real workers, and every way to lose one."""

import asyncio
import json
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kfm_server.runtime.pools.hub import LEASE_SECONDS
from xenocomm import Client, TurnHandle
from xenocomm._gen.types import Envelope, Outcome, StepEvent, StepResultEvent, StepStatus, WaitReason
from xenocomm._gen.types import Worker as WorkerInfo

from tests.e2e.test_first_turn import kfm
from tests.support.ledger import read_ledger
from tests.support.live import LiveServer, a_moment
from tests.support.live_worker import LiveWorker
from tests.support.plans import Gate, call, given, started, until, waits

pytestmark = [pytest.mark.requirement("R10"), pytest.mark.timeout(120)]
SECONDS = 30.0


class Site:
    """One server, its workers, and the file that their tools write to."""

    def __init__(self, home: Path, database: str) -> None:
        self.home = home
        self.server = LiveServer(home, database_url=database)
        self.workers: list[LiveWorker] = []
        self.gate = Gate(home / "gate")

    def worker(self, name: str, **fields: Any) -> LiveWorker:
        """A worker of the site, started."""
        made = LiveWorker(self.home, self.server.grpc, name, **fields).start()
        self.workers.append(made)
        return made

    def done(self) -> list[dict[str, Any]]:
        """Every call of the ledger's tools."""
        return read_ledger(self.home / "ledger.jsonl")


own_postgres = pytest.mark.parametrize("site", [""], indirect=True, ids=["own Postgres"])
"""For a server that is killed: it takes over at once what it left, and need not wait until its leases are over."""


@pytest.fixture
def site(request: pytest.FixtureRequest, database: str) -> Iterator[Site]:
    home = Path(tempfile.mkdtemp(prefix="kfm-workers-"))
    home.chmod(0o755)
    site = Site(home, database if (own := getattr(request, "param", None)) is None else own)
    try:
        site.server.start()
        yield site
    finally:
        for worker in site.workers:
            worker.kill()
        site.server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    async with Client(site.server.grpc, timeout=SECONDS) as client:
        yield client


async def listed(client: Client, wanted: Callable[[Sequence[WorkerInfo]], bool]) -> list[str]:
    """Wait until the workers of the pool are as wanted; answers the names of those that perform something."""
    async with asyncio.timeout(SECONDS):
        while not wanted(found := (await client.server.workers("gpu")).workers):
            await a_moment()
    return [w.worker for w in found if w.running]


async def serving(client: Client, *names: str, running: int | None = None) -> list[str]:
    """Wait until these workers are connected, and perform so many attempts; answers the names of those that do."""
    return await listed(
        client,
        lambda found: (
            {*names} <= {w.worker for w in found}
            and (running is None or sum(w.running for w in found) == running)
        ),
    )


async def written(site: Site, rows: int = 1) -> None:
    """Wait until tools have written so many rows to the ledger."""
    async with asyncio.timeout(SECONDS):
        while len(site.done()) < rows:
            await a_moment()


def dispatched(step_key: str, attempt: int) -> Callable[[Envelope], bool]:
    """An attempt of the step was dispatched."""
    return lambda e: started(step_key)(e) and e.attempt == attempt


def results(seen: list[Envelope]) -> list[StepResultEvent]:
    """The results among events."""
    return [e.event for e in seen if isinstance(e.event, StepResultEvent)]


async def ended(turn: TurnHandle) -> list[Envelope]:
    """All events of a turn, once it has ended."""
    async with asyncio.timeout(SECONDS):
        return [event async for event in turn.events()]


async def test_a_step_is_performed_by_a_worker_of_its_pool(site: Site, client: Client) -> None:
    site.worker("w1")
    await serving(client, "w1")
    turn = await client.turns.start(given(call("a", "ledger_idempotent"), call("b", "ledger_once", "a")))
    seen = await ended(turn)
    assert (await turn.get()).outcome == Outcome.SUCCEEDED
    assert [(r.step_key, r.status, r.worker) for r in results(seen)] == [
        ("a", StepStatus.SUCCEEDED, "w1"),
        ("b", StepStatus.SUCCEEDED, "w1"),
    ]
    assert [e.event.pool for e in seen if isinstance(e.event, StepEvent)] == ["gpu", "gpu"]
    assert [row["tool"] for row in site.done()] == ["ledger_idempotent", "ledger_once"]


async def test_what_a_worker_tells_of_its_progress_reaches_a_watcher(site: Site, client: Client) -> None:
    site.worker("w1")
    await serving(client, "w1")
    turn = await client.turns.start(given(call("a", "teller", times=3, hold=site.gate.hold)))
    told: list[str | None] = []
    async with asyncio.timeout(SECONDS):
        async for update in turn.updates():
            if update.delta is not None:
                told.append(update.delta.progress)
            elif update.event is not None and started("a")(update.event):
                site.gate.open()
    assert told == ["piece 0", "piece 1", "piece 2"]


async def test_a_step_waits_for_its_pool_and_goes_on_when_a_worker_comes(site: Site, client: Client) -> None:
    first = site.worker("w1")
    await serving(client, "w1")
    assert first.stop() == 0, first.log_tail()
    turn = await client.turns.start(given(call("a", "ledger_once")))
    await until(turn, started("a"))
    site.worker("w2")
    assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED
    assert len(site.done()) == 1


@pytest.mark.requirement("R6", "FT2")
async def test_an_idempotent_step_of_a_killed_worker_is_done_by_another(site: Site, client: Client) -> None:
    site.worker("w1")
    site.worker("w2")
    await serving(client, "w1", "w2")
    turn = await client.turns.start(given(call("a", "ledger_idempotent", hold=site.gate.hold)))
    (busy,) = await serving(client, running=1)
    killed_at = time.monotonic()
    next(w for w in site.workers if w.name == busy).kill()
    site.gate.open()
    await until(turn, dispatched("a", 2))
    print(
        f"given to another {time.monotonic() - killed_at:.2f} s after the kill; the lease is {LEASE_SECONDS} s"
    )
    assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED
    (result,) = results(await ended(turn))
    assert result.worker != busy
    assert [row["attempt"] for row in site.done()] == [2]


@pytest.mark.requirement("R6", "FT2")
async def test_a_step_that_may_run_once_waits_for_a_person_when_its_worker_was_killed(
    site: Site, client: Client
) -> None:
    site.worker("w1")
    site.worker("w2")
    await serving(client, "w1", "w2")
    turn = await client.turns.start(
        given(
            call("a", "ledger_once", hold=site.gate.hold, timeout_ms=3000)
        )  # settled once it has surely ended
    )
    (busy,) = await serving(client, running=1)
    next(w for w in site.workers if w.name == busy).kill()
    await until(turn, waits(WaitReason.NEEDS_REVIEW))
    assert site.done() == []


@pytest.mark.requirement("R6", "FT3")
async def test_a_frozen_workers_late_result_is_refused_and_counted(site: Site, client: Client) -> None:
    site.worker("w1")
    site.worker("w2")
    await serving(client, "w1", "w2")
    turn = await client.turns.start(given(call("a", "ledger_idempotent", hold=site.gate.hold)))
    (busy,) = await serving(client, running=1)
    frozen = next(w for w in site.workers if w.name == busy)
    frozen.signal(signal.SIGSTOP)
    await until(turn, dispatched("a", 2))  # its lease is over
    site.gate.open()
    done = await turn.result(timeout=SECONDS)
    assert done.outcome == Outcome.SUCCEEDED
    frozen.signal(signal.SIGCONT)
    site.server.await_metric("kfm_late_results_total 1.0", SECONDS)
    (result,) = results(await ended(turn))
    assert result.worker != busy
    assert [row["effect"] for row in site.done()].count(True) == 1
    await serving(client, "w1", "w2", running=0)
    assert frozen.stop() == 0, frozen.log_tail()


@pytest.mark.requirement("R6")
@pytest.mark.parametrize("site", ["", None], indirect=True, ids=["own Postgres", "leases that outlive it"])
async def test_a_server_that_is_killed_adopts_what_its_worker_goes_on_with(
    site: Site, client: Client
) -> None:
    site.worker("w1")
    await serving(client, "w1")
    turn = await client.turns.start(given(call("a", "ledger_once", hold=site.gate.hold)))
    await serving(client, running=1)
    site.server.kill()
    site.server.start()
    await serving(client, "w1", running=1)
    site.gate.open()
    done = await turn.result(timeout=SECONDS)
    assert done.outcome == Outcome.SUCCEEDED
    assert [(row["attempt"], row["effect"]) for row in site.done()] == [(1, True)]
    (result,) = results(await ended(turn))
    assert (result.worker, result.status) == ("w1", StepStatus.SUCCEEDED)


@pytest.mark.requirement("R6")
@own_postgres
async def test_what_ends_while_the_server_is_away_is_recorded_when_it_is_back(
    site: Site, client: Client
) -> None:
    worker = site.worker("w1")
    await serving(client, "w1")
    turn = await client.turns.start(given(call("a", "ledger_once", hold=site.gate.hold)))
    await serving(client, running=1)
    site.server.kill()
    site.gate.open()
    await written(site)
    site.server.start()
    assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED
    assert len(site.done()) == 1
    assert worker.stop() == 0, worker.log_tail()


async def test_a_server_that_is_restarted_in_order_cuts_nothing(site: Site, client: Client) -> None:
    site.worker("w1")
    await serving(client, "w1")
    turn = await client.turns.start(given(call("a", "ledger_once", hold=site.gate.hold)))
    await serving(client, running=1)
    assert site.server.stop() == 0, site.server.log_tail()
    site.server.start()
    site.gate.open()
    assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED
    assert [row["attempt"] for row in site.done()] == [1]


async def test_a_worker_that_is_stopped_ends_what_it_does_first(site: Site, client: Client) -> None:
    worker = site.worker("w1")
    await serving(client, "w1")
    turn = await client.turns.start(given(call("a", "teller", hold=site.gate.hold)))
    await written(site)
    worker.signal(signal.SIGTERM)
    await listed(client, lambda found: [w.capacity for w in found] == [0])
    site.gate.open()
    assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED
    assert worker.ended() == 0, worker.log_tail()


async def test_a_stopped_worker_gives_up_at_its_drain_time_and_at_once_when_told_twice(
    site: Site, client: Client
) -> None:
    patient = site.worker("w1", options=("--drain", "0.1"))
    await serving(client, "w1")
    turn = await client.turns.start(given(call("a", "teller", hold=site.gate.hold)))
    await written(site)
    assert patient.stop() == 0, patient.log_tail()
    hasty = site.worker("w2")
    await written(site, 2)  # what w1 gave up is tried again
    hasty.signal(signal.SIGTERM)
    await listed(client, lambda found: [w.capacity for w in found] == [0])
    hasty.signal(signal.SIGTERM)
    assert hasty.ended() == 130
    site.gate.open()
    site.worker("w3")
    assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED


async def test_a_cancelled_turn_stops_its_worker(site: Site, client: Client) -> None:
    site.worker("w1")
    await serving(client, "w1")
    turn = await client.turns.start(given(call("a", "teller", hold=site.gate.hold)))
    await written(site)
    await turn.cancel()
    await serving(client, "w1", running=0)
    assert (await turn.result(timeout=SECONDS, check=False)).outcome == Outcome.CANCELLED


async def test_workers_are_listed(site: Site, client: Client) -> None:
    site.worker("w1", options=("--capacity", "3"))
    await serving(client, "w1")
    code, out, err = await kfm(site.server, "worker", "list", "--pool", "gpu", "-o", "json")
    assert code == 0, err
    (found,) = json.loads(out)
    assert (found["worker"], found["pool"], found["capacity"], found["running"]) == ("w1", "gpu", 3, 0)
    code, out, _ = await kfm(site.server, "worker", "list", "-o", "table")
    assert code == 0 and out.split()[:2] == ["NAME", "POOL"] and "w1" in out


async def test_a_worker_that_the_server_refuses_says_why_and_ends(site: Site) -> None:
    refused = site.worker("w1", tools="kfm_server.tools.calculator:TOOLS_OF_NOBODY")
    assert refused.ended() == 2
    assert "TOOLS_OF_NOBODY" in refused.log_tail()
    taken = site.worker("w2", tools="tests.support.work_tools:TAKEN")
    assert taken.ended() == 2
    assert "REASON_TOOL_INVALID" in taken.log_tail(), taken.log_tail()


async def test_a_worker_without_the_servers_token_ends(site: Site) -> None:
    site.server.stop()
    site.server.environment = {"KFM_TOKEN": "the-servers-token"}
    site.server.start()
    refused = site.worker("w1", environment={"KFM_TOKEN": "another-token-than-that"})
    assert refused.ended() == 4
    assert "REASON_UNAUTHENTICATED" in refused.log_tail()
    assert "another-token" not in refused.log_tail()
    welcome = site.worker("w2", environment={"KFM_TOKEN": "the-servers-token"})
    async with Client(site.server.grpc, token="the-servers-token", timeout=SECONDS) as client:
        await serving(client, "w2")
    assert welcome.stop() == 0
