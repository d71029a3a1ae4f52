"""Runs cells of the fault matrix: `python -m tests.faults.matrix.run --bus bus_postgres --seed 1`.

Each cell's counts are appended to a file of JSON lines (--results). --only, --sample and --minutes take a part of the
cells; --continue leaves out those that stand in the file with the same seed. Exits with 1 if a cell is not green.
"""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from kfm_server.journal import embedded

from tests.faults.matrix.cells import BUSES, Bus, Cell, cells
from tests.faults.matrix.counting import count, story
from tests.faults.matrix.load import Load, by_plan
from tests.faults.matrix.results import RESULTS, Result, append, latest
from tests.faults.matrix.site import Site, running
from tests.faults.matrix.versions import versions
from tests.support import iggy as iggy_support

SLOW_SECONDS = 5.0
"""Of turns that took longer to recover the story is kept."""
HIT_SECONDS = 20.0
"""A point that is not passed by then is not passed by the turns."""


async def run_cell(site: Site, cell: Cell, seed: int, told: dict[str, str]) -> Result:
    """Kill the cell's process at its point under load, start it again, and count."""
    message = "Do all of it." if cell.point.startswith("model.") else by_plan()
    load = Load(site.endpoint, f"{cell.name}-{seed}-{time.monotonic_ns()}", message)
    async with asyncio.TaskGroup() as group:
        if cell.starting:
            group.create_task(load.run(), name="load")
            await load.flowing.wait()
        await site.stop(cell)
        await site.start(cell, armed=True)
        if not cell.starting:
            group.create_task(load.run(), name="load")
        hit = await site.died(cell, HIT_SECONDS)
        killed_at = time.monotonic()
        load.enough.set()
        if hit:
            await site.start(cell, armed=False)
    if not hit:
        await site.stop(cell)
        await site.start(cell, armed=False)
    ran = load.ran
    counts = await count(site.dsn, site.ledgers, [r.watched for r in ran if r.watched.turn_id])
    cut = [r for r in ran if r.began < killed_at < r.settled] if hit else []
    return Result(
        point=cell.point,
        nth=cell.nth,
        role=cell.role,
        bus=cell.bus,
        seed=seed,
        hit=hit,
        turns=len(ran),
        in_flight=len(cut),
        lost=sum(r.lost for r in ran),
        failed=sum(r.failed for r in ran),
        needs_review=sum(not r.watched.ended for r in ran if not r.lost),
        duplicates=counts.duplicates,
        repeats=counts.repeats,
        missing=counts.missing,
        gaps=counts.gaps,
        recovery=[round(r.settled - killed_at, 3) for r in cut if r.watched.turn_id not in counts.graced],
        graced=[round(r.settled - killed_at, 3) for r in cut if r.watched.turn_id in counts.graced],
        versions=told,
        why=[
            f"{r.watched.turn_id} {r.why}\n    {await story(site.dsn, r.watched.turn_id)}"
            for r in ran
            if r.lost or r.failed or (r in cut and r.settled - killed_at > SLOW_SECONDS)
        ],
    )


@asynccontextmanager
async def sitting(bus: Bus, home: Path) -> AsyncGenerator[tuple[Site, dict[str, str]]]:
    """A database, a broker if the bus is one, and the processes; and the versions of what runs."""
    postgres = await embedded.start(home)
    try:
        if bus == "bus_postgres":
            async with running(home / "site", postgres.dsn, None) as site:
                yield site, await versions(postgres.dsn, None)
        else:
            async with (
                iggy_support.serving(home / "iggy") as iggy,
                running(home / "site", postgres.dsn, iggy) as site,
            ):
                yield site, await versions(postgres.dsn, iggy)
    finally:
        await postgres.stop()


def chosen(arguments: argparse.Namespace) -> list[Cell]:
    """The cells that were asked for."""
    found = cells(arguments.seed, arguments.bus or BUSES)
    found = [cell for cell in found if arguments.only in cell.name]
    if arguments.go_on:
        done = {r.key for r in latest(arguments.results) if r.seed == arguments.seed and r.green}
        found = [c for c in found if (c.bus, c.role, c.point, c.nth) not in done]
    if arguments.sample:
        found = random.Random(arguments.seed).sample(found, min(arguments.sample, len(found)))
    return found


async def run(arguments: argparse.Namespace) -> int:
    """Run them; answers how many are not green."""
    wrong, until = 0, time.monotonic() + arguments.minutes * 60
    asked = chosen(arguments)
    for bus in BUSES:
        mine = [cell for cell in asked if cell.bus == bus]
        if bus == "bus_iggy" and mine and not iggy_support.real():
            print(f"bus_iggy: {len(mine)} cells SKIPPED: no real Iggy server is given", flush=True)
            continue
        if not mine:
            continue
        home = _home()
        try:
            async with sitting(bus, home) as (site, told):
                await Load(site.endpoint, "warm", by_plan()).until_they_succeed()
                for cell in mine:
                    if time.monotonic() > until:
                        break
                    result = await run_cell(site, cell, arguments.seed, told)
                    append(arguments.results, result)
                    wrong += not result.green
                    _tell(cell, result)
                    if not result.green:
                        print(site.log_tail(cell), flush=True)
                    await site.ready()
        finally:
            if os.environ.get("KFM_TEST_KEEP"):
                print(f"kept: {home}")
            else:
                shutil.rmtree(home, ignore_errors=True)
    return wrong


def _home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="kfm-matrix-"))
    home.chmod(0o755)
    return home


def _tell(cell: Cell, result: Result) -> None:
    state = "green" if result.green else "NOT GREEN" if result.hit else "NEVER HIT"
    print(
        f"{state} {cell.name} turns={result.turns} in_flight={result.in_flight} lost={result.lost}"
        f" failed={result.failed} review={result.needs_review} duplicates={sum(result.duplicates.values())}"
        f" missing={result.missing} gaps={result.gaps} recovery_max={max(result.recovery, default=0):.2f}"
        f" graced={result.graced}",
        *(f"\n  {line}" for line in result.why),
        flush=True,
    )


def main(given: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.matrix.run", description=__doc__)
    parser.add_argument("--bus", action="append", choices=BUSES, help="only this bus; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="a part of the cells' names, as bus_iggy/relay/")
    parser.add_argument("--sample", type=int, default=0, help="so many cells, drawn by the seed")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no cell after that")
    parser.add_argument(
        "--continue", dest="go_on", action="store_true", help="leave out what is done and green"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="only print the cells")
    arguments = parser.parse_args(given)
    if arguments.list:
        print("\n".join(cell.name for cell in chosen(arguments)))
        return 0
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    return 1 if asyncio.run(run(arguments)) else 0


if __name__ == "__main__":
    sys.exit(main())
