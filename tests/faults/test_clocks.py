"""FT17: the wall clock of a process jumps by an hour, forth and back, under load. Nothing goes by it."""

import asyncio
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.faults.conftest import Report
from tests.faults.matrix.counting import count
from tests.faults.matrix.load import Load, by_plan
from tests.faults.matrix.site import running
from tests.faults.shims import shim

HOUR = 3600
JUMPS = (HOUR, -HOUR, 0)
TURNS = 6
"""That settle after each jump."""


@pytest.fixture
def home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="kfm-clocks-"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


def jump_to(offset: Path, seconds: int) -> None:
    """In place: the process has the file mapped."""
    with offset.open("r+b") as file:
        file.write(struct.pack("=q", seconds))


async def epochs(dsn: str) -> dict[int, int]:
    """How often each partition has changed hands."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("select partition, epoch from kfm.leases")
    finally:
        await connection.close()
    return {row["partition"]: row["epoch"] for row in rows}


@pytest.mark.requirement("R8", "FT17", "I1", "I3", "I5", "I7")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["api", "runtime", "worker"])
async def test_a_process_whose_clock_jumps_by_an_hour_keeps_its_leases_and_ends_its_turns(
    name: str, home: Path, empty_database: str, report: Report
) -> None:
    offset = home / "offset"
    offset.write_bytes(struct.pack("=q", 0))
    jumping = {"LD_PRELOAD": str(shim("clock")), "CLOCK_SHIM_FILE": str(offset)}
    async with running(home / "site", empty_database, None, {name: jumping}) as site:
        await Load(site.endpoint, "warm", by_plan()).until_they_succeed()
        before = await epochs(empty_database)
        load = Load(site.endpoint, "jumping", by_plan())
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(), name="load")
            for jump in JUMPS:
                jump_to(offset, jump)
                await load.settled_turns(TURNS)
            load.enough.set()
        assert await epochs(empty_database) == before, "partitions changed hands"
        counts = await count(empty_database, site.ledgers, [ran.watched for ran in load.ran])
    assert [ran.why or ran.turn for ran in load.ran if ran.lost or ran.failed or not ran.watched.ended] == []
    assert (counts.gaps, counts.missing, sum(counts.duplicates.values())) == (0, 0, 0)
    report(turns=len(load.ran))
