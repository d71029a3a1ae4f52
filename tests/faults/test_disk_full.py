"""FT18: the disk of the database and of the home is full. Clients are told, reads work, and it goes on by itself."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfm_server.journal import embedded
from xenocomm import Client, Part, errors
from xenocomm._gen.types import Outcome, TurnState

from tests.faults.auditor import audit
from tests.faults.conftest import Report
from tests.faults.work import FIVE_TOOLS, ledger_server, plan

DISK = "192m"
TRIES = 8
TOLD = (errors.Unavailable, errors.DeadlineExceeded, errors.Overloaded)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small disk of its own."""
    at = Path(tempfile.mkdtemp(prefix="kfm-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "tmpfs", at], capture_output=True
    )
    if mounted.returncode:
        at.rmdir()
        pytest.skip("NOT SHOWN HERE: this account may not mount a tmpfs")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=False)
        shutil.rmtree(at, ignore_errors=True)


def fill(disk: Path) -> Path:
    """Take all that is left; answers the file that does."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    os.write(file.fileno(), b"\0" * size)
            except OSError:
                pass
    return ballast


@pytest.mark.requirement("R8", "FT18", "I1", "I3", "I4")
async def test_a_full_disk_is_told_and_read_from_and_gone_on_with(
    disk: Path, tmp_path: Path, report: Report
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    server = ledger_server(disk / "home", ledger)
    big = Part(text="x" * 200_000)
    try:
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(100), Client(server.grpc, timeout=30) as kfm:
            before = await kfm.turns.run([Part(data_json=plan(*FIVE_TOOLS))], check=False)
            assert before.outcome == Outcome.SUCCEEDED
            ballast = await asyncio.to_thread(fill, disk)
            told: list[str] = []
            async with Client(server.grpc, timeout=2) as hasty:
                for number in range(TRIES):
                    try:
                        await hasty.turns.start(["2 + 3", big], idempotency_key=f"big-{number}")
                    except TOLD as error:
                        told.append(error.reason)
            assert told, "the disk was not full"
            assert (await kfm.turns.get(before.turn_id)).outcome == Outcome.SUCCEEDED
            ballast.unlink()
            turns = [
                await kfm.turns.start(["2 + 3", big], idempotency_key=f"big-{number}")
                for number in range(TRIES)
            ]
            for turn in turns:
                # Nobody plans so long a text without a model: it fails, which is an end as well.
                assert (await turn.result(check=False)).state == TurnState.FINISHED
            after = await kfm.turns.run([Part(data_json=plan(*FIVE_TOOLS))], check=False)
            assert after.outcome == Outcome.SUCCEEDED
    finally:
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.log_tail()
    postgres = await embedded.start(server.home)
    try:
        assert len(await audit(postgres.dsn, ledger)) == 2 + TRIES
    finally:
        await postgres.stop()
    report(refused=len(told), reasons=",".join(sorted(set(told))))
