"""FT19: every fsync of the database takes 20 ms longer. Turns share them, as group commit has it, and no lease is lost."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfm_server.journal import embedded
from xenocomm import Client, Part
from xenocomm._gen.types import Outcome

from tests.faults.auditor import audit
from tests.faults.conftest import Report
from tests.faults.shims import shim
from tests.faults.test_clocks import epochs
from tests.faults.work import amount, plan
from tests.support.live import LiveServer

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


async def seconds_for(kfm: Client, turns: int, at_once: int, key: str) -> float:
    """How long so many turns take, so many at a time."""
    numbers = iter(range(turns))

    async def client() -> None:
        for number in numbers:
            turn = await kfm.turns.run([Part(data_json=plan(*TOOLS))], idempotency_key=f"{key}-{number}")
            assert turn.outcome == Outcome.SUCCEEDED

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(client())
    return time.monotonic() - began


@pytest.mark.requirement("R8", "FT19", "I1", "I2", "I5")
async def test_turns_share_slow_fsyncs_and_no_lease_is_lost(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    ledger, turns = tmp_path / "ledger.jsonl", amount("KFM_TEST_TURNS", 96, 48)
    plain = await embedded.start(home)
    await plain.stop()
    preload = {"LD_PRELOAD": str(shim("slow_fsync")), "SLOW_FSYNC_MS": str(FSYNC_MS)}
    environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath, **preload}
    monkeypatch.setattr("kfm_server.journal.embedded._environment", lambda: environment)
    postgres = await embedded.start(home)
    server = LiveServer(
        tmp_path / "home",
        tools="tests.support.ledger:TOOLS",
        database_url=postgres.dsn,
        environment={"LEDGER_FILE": str(ledger)},
    )
    try:
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(100), Client(server.grpc, timeout=60) as kfm:
            await seconds_for(kfm, 2, 2, "warm")
            before = await epochs(postgres.dsn)
            alone = await seconds_for(kfm, 6, 1, "alone") / 6
            together = await seconds_for(kfm, turns, 16, "together") / turns
            assert await epochs(postgres.dsn) == before, "partitions changed hands"
        assert len(await audit(postgres.dsn, ledger)) == turns + 8
    finally:
        code = await asyncio.to_thread(server.stop)
        await postgres.stop()
    assert code == 0, server.log_tail()
    report(alone_ms=round(alone * 1000), together_ms=round(together * 1000), fsyncs_ms=APPENDS * FSYNC_MS)
    assert alone > APPENDS * FSYNC_MS / 1000, "the shim does not slow this Postgres"
    assert together < alone / 2, "sixteen turns at a time do not share commits"
