"""FT19: every fsync of the database takes 20 ms longer. Turns share them, as group commit has it, and no lease is lost."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kfm_server.journal import embedded
from xenocomm import Client, Part
from xenocomm._gen.types import Outcome

from tests.faults.auditor import audit
from tests.faults.conftest import Report
from tests.faults.shims import shim
from tests.faults.test_clocks import epochs
from tests.faults.work import amount, ledger_server, plan, side_by_side

FSYNC_MS = 20
TOOLS = ("ledger_idempotent",) * 3
APPENDS = 4
"""Commits that a turn waits for, one after the other: one for each step, and one for its end."""


@pytest.fixture
def home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="kfm-slow-disk-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@dataclass
class Cost:
    """What turns took: `fsyncs` of all the database's processes, whatever for."""

    fsyncs: float
    seconds: float


def size(file: Path) -> int:
    """In bytes."""
    return file.stat().st_size


async def cost_of(kfm: Client, counted: Path, turns: int, at_once: int, key: str) -> Cost:
    """Of one turn of so many, so many at a time."""
    numbers = iter(range(turns))

    async def client(_: int) -> None:
        for number in numbers:
            turn = await kfm.turns.run([Part(data_json=plan(*TOOLS))], idempotency_key=f"{key}-{number}")
            assert turn.outcome == Outcome.SUCCEEDED

    began, before = time.monotonic(), size(counted)
    await side_by_side(at_once, client)
    return Cost((size(counted) - before) / turns, (time.monotonic() - began) / turns)


@pytest.mark.requirement("R8", "FT19", "I1", "I2", "I5")
async def test_turns_share_slow_fsyncs_and_no_lease_is_lost(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    ledger, turns = tmp_path / "ledger.jsonl", amount("KFM_TEST_TURNS", 96, 48)
    plain = await embedded.start(home)
    await plain.stop()
    counted = home / "fsyncs"
    counted.touch()
    counted.chmod(0o666)
    preload = {
        "LD_PRELOAD": str(shim("slow_fsync")),
        "SLOW_FSYNC_MS": str(FSYNC_MS),
        "SLOW_FSYNC_COUNT": str(counted),
    }
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath, **preload}
    monkeypatch.setattr("kfm_server.journal.embedded._environment", lambda: environment)
    postgres = await embedded.start(home)
    server = ledger_server(tmp_path / "home", ledger, postgres.dsn)
    try:
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(100), Client(server.grpc, timeout=60) as kfm:
            await cost_of(kfm, counted, 2, 2, "warm")
            before = await epochs(postgres.dsn)
            alone = await cost_of(kfm, counted, 6, 1, "alone")
            together = await cost_of(kfm, counted, turns, 16, "together")
            assert await epochs(postgres.dsn) == before, "partitions changed hands"
        assert len(await audit(postgres.dsn, ledger)) == turns + 8
    finally:
        code = await asyncio.to_thread(server.stop)
        await postgres.stop()
    assert code == 0, server.log_tail()
    report(alone_ms=round(alone.seconds * 1000), alone_fsyncs=round(alone.fsyncs, 1))
    report(together_ms=round(together.seconds * 1000), together_fsyncs=round(together.fsyncs, 1))
    assert alone.fsyncs >= APPENDS, "the shim does not slow this Postgres"
    assert together.fsyncs < APPENDS / 2, "sixteen turns at a time do not share commits"
