"""What keeps a server from starting reaches its operator as one line and a documented exit code."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from kfm_server.journal.migrate import migrate

pytestmark = pytest.mark.requirement("E1", "E6")
ROOT = Path(__file__).parents[2]


async def no_start(**settings: str) -> tuple[int, str]:
    """The exit code of a `kfm serve` that does not come up, and the one line that it says on stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
    environment |= {"KFM_GRPC_ADDRESS": "127.0.0.1:0", "KFM_HTTP_ADDRESS": "127.0.0.1:0"} | settings
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "kfm_server"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (Path(settings["KFM_HOME"]) / "endpoints.json").exists()
    return done.returncode, said[0]


async def test_a_door_that_must_not_open_starts_no_database(tmp_path: Path) -> None:
    home = tmp_path / "home"
    code, said = await no_start(KFM_HOME=str(home), KFM_HTTP_ADDRESS="0.0.0.0:0")
    assert (code, "KFM_TOKEN" in said) == (2, True)
    assert not home.exists()


async def test_a_database_of_another_number_of_partitions_is_refused(tmp_path: Path, database: str) -> None:
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=database, KFM_PARTITIONS="4")
    assert code == 2
    assert re.search(r"16 partitions .* 4", said)


async def test_a_database_that_is_newer_than_the_server_is_refused(
    tmp_path: Path, empty_database: str
) -> None:
    await migrate(empty_database)
    db: Any = await asyncpg.connect(empty_database)
    await db.execute("insert into kfm.migrations (number, name, checksum) values (9999, 'later', '')")
    await db.close()
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=empty_database)
    assert (code, "9999" in said) == (2, True)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", 1),
        ("mysql://127.0.0.1/none", 2),
        ("postgresql://127.0.0.1:notaport/none", 1),
    ],
)
async def test_a_database_that_cannot_be_reached_is_told(tmp_path: Path, url: str, code: int) -> None:
    assert (await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=url))[0] == code


async def test_a_database_that_is_not_there_is_named(tmp_path: Path, database: str) -> None:
    url = re.sub(r"/test_\d+", "/no_such_database", database)
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=url)
    assert (code, "no_such_database" in said) == (2, True)


@pytest.mark.parametrize("tools", ["nonsense", "no_such_module:TOOLS", "json:TOOLS"])
async def test_tools_that_cannot_be_offered_are_named(tmp_path: Path, tools: str) -> None:
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_TOOLS=tools)
    assert (code, tools.partition(":")[0] in said) == (2, True)


@pytest.mark.parametrize("door", ["KFM_GRPC_ADDRESS", "KFM_HTTP_ADDRESS"])
async def test_a_port_that_is_taken_is_named(tmp_path: Path, database: str, door: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=database, **{door: address})
    assert (code, address.partition(":")[2] in said) == (1, True)
