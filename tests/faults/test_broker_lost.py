"""FT8, FT9 and FT10: the broker is away, has lost what it had, or hears everything three times. Turns do not notice."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from kfm_server.ports.broker import BrokerUnavailable
from xenocomm._gen.types import Outcome

from tests.e2e.test_over_the_broker import Site, asked, site
from tests.faults.conftest import Report
from tests.faults.footprint import SLACK_MIB, footprint
from tests.faults.work import amount, seeds
from tests.support.iggy import Iggy
from tests.support.live import a_moment

__all__ = ["site"]
AT_ONCE = 8
SECONDS = 60.0
LATE_SHARE, LATE_SECONDS = 0.1, 5.0


@pytest.fixture(autouse=True)
def ours(iggy: Iggy) -> None:
    """Every test here but one kills it."""
    if not iggy.own:
        pytest.skip("NOT SHOWN HERE: the Iggy server that was given is not ours to kill")


async def load(site: Site, enough: asyncio.Event, done: Counter[str]) -> None:
    """Turns, some at any time, until `enough`; counts outcomes."""

    async def client() -> None:
        while not enough.is_set():
            turn = await site.kfm.turns.run("2 + 3", wait=SECONDS)
            done[Outcome(turn.outcome).name] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(client())


async def more(done: Counter[str], turns: int) -> None:
    """Wait, bounded, until so many more turns have ended."""
    wanted = done.total() + turns
    async with asyncio.timeout(SECONDS):
        while done.total() < wanted:  # noqa: ASYNC110 (turns of many tasks)
            await asyncio.sleep(0.02)


async def told(site: Site, name: str) -> float:
    """A counter of the server, over all its labels."""
    metrics = await asyncio.to_thread(site.server.metrics)
    return sum(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(f"{name}{{"))


async def relayed_more(site: Site) -> None:
    """Wait, bounded, until the relay has published something."""
    before = await told(site, "kfm_relay_published_total")
    async with asyncio.timeout(SECONDS):
        while await told(site, "kfm_relay_published_total") == before:
            await a_moment()


async def relayed(site: Site) -> None:
    """As the site's, with time for much."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await site.relayed()
            except (TimeoutError, BrokerUnavailable):  # its stream was gone, and is made again
                continue


@pytest.mark.requirement("R8", "B1", "FT8", "I2", "I4")
@pytest.mark.timeout(300)
async def test_turns_go_on_without_the_broker_and_all_of_them_are_there_after_its_return(
    site: Site, iggy: Iggy, report: Report
) -> None:
    """KFM_TEST_ABSENCE: seconds of the longest absence."""
    absence = amount("KFM_TEST_ABSENCE", 10, 3, full=60)
    done, enough = Counter[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(load(site, enough, done))
        await more(done, 4 * AT_ONCE)
        before = await asyncio.to_thread(footprint, site.server)
        for seconds in (0, absence):
            await iggy.kill()
            async with asyncio.timeout(seconds + SECONDS):
                until = asyncio.get_running_loop().time() + seconds
                while asyncio.get_running_loop().time() < until:
                    await more(done, AT_ONCE)
            await iggy.start()
            await more(done, 2 * AT_ONCE)
        held = await asyncio.to_thread(footprint, site.server)
        enough.set()
    assert set(done) == {"SUCCEEDED"}
    await relayed(site)
    # What waits for the broker waits in the journal: memory does not grow with it.
    assert held.memory_mib < before.memory_mib * 1.1 + SLACK_MIB
    report(turns=done.total(), absence_s=absence, memory_mib=f"{before.memory_mib:.0f}-{held.memory_mib:.0f}")


@pytest.mark.requirement("R8", "B1", "FT9", "I2", "I4")
@pytest.mark.timeout(300)
async def test_a_broker_that_was_wiped_under_load_gets_all_of_it_again(
    site: Site, iggy: Iggy, report: Report
) -> None:
    done, enough = Counter[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(load(site, enough, done))
        for _ in range(2):
            await relayed_more(site)
            await iggy.kill()
            await iggy.forget()
            await more(done, AT_ONCE)
            await iggy.start()
        await more(done, 4 * AT_ONCE)
        enough.set()
    assert set(done) == {"SUCCEEDED"}
    await relayed(site)
    refills = int(await told(site, "kfm_relay_refills_total"))
    assert refills, "it was never refilled"
    report(turns=done.total(), refills=refills)


@pytest.mark.requirement("R8", "B1", "FT10", "I2", "I6")
@pytest.mark.timeout(300)
async def test_requests_on_the_broker_three_times_out_of_order_and_late_leave_what_a_clean_run_leaves(
    site: Site, report: Report
) -> None:
    requests = amount("KFM_TEST_TURNS", 64, 24)
    sums = [f"{n} + {n + 1}" for n in range(requests)]
    runs = {"clean": await published(site, "clean", sums, None)}
    for seed in seeds(most=3, sample=1):
        runs[f"seed{seed}"] = await published(site, f"seed{seed}", sums, random.Random(seed))
    for name, state in runs.items():
        assert state == runs["clean"], name
    report(requests=requests, runs=len(runs))


async def published(site: Site, name: str, sums: list[str], draw: random.Random | None) -> list[Any]:
    """Publish a request of each sum, with a draw three times and shuffled; what each session has in the end."""
    events = [(f"{name}-{n}", f"ses_{name}_{n}", text) for n, text in enumerate(sums)]
    copies = events if draw is None else draw.sample(events * 3, len(events) * 3)

    async def one(event: tuple[str, str, str], late: float) -> None:
        await asyncio.sleep(late)
        event_id, session, text = event
        await site.publish(event_id, asked(event_id, session, text), session)

    async with asyncio.TaskGroup() as group:
        for event in copies:
            late = draw.uniform(0, LATE_SECONDS) if draw is not None and draw.random() < LATE_SHARE else 0.0
            group.create_task(one(event, late))
    left: list[Any] = []
    async with asyncio.timeout(SECONDS):
        for _, session, _ in events:
            while not (turns := [t async for t in site.kfm.turns.list(session_id=session)]):
                await a_moment()
            ended = [await site.kfm.turns.attach(t.turn_id).result(check=False) for t in turns]
            left.append([(t.outcome, [part.text for part in t.output], t.last_sequence) for t in ended])
    return left
