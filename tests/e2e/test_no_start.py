"""What keeps a server from starting reaches its operator as one line and a documented exit code."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from kfm_server.journal.migrate import migrate
from kfm_server.ports.tools import ToolSpec

from tests.support import forking

pytestmark = pytest.mark.requirement("E1", "E6")
ROOT = Path(__file__).parents[2]


class _Spoilt:
    """A tool that fails when it is asked what it is."""

    @property
    def spec(self) -> ToolSpec:
        raise RuntimeError("spoilt")


SPOILT = [_Spoilt()]


async def no_start(command: Sequence[str] = (), **settings: str) -> tuple[int, str]:
    """The exit code of a `kfm serve` that does not come up, and the one line that it says on stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
    environment |= {"KFM_GRPC_ADDRESS": "127.0.0.1:0", "KFM_HTTP_ADDRESS": "127.0.0.1:0"} | settings
    done = await asyncio.to_thread(
        subprocess.run,
        command or (*forking.kfm(), "serve"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert ".cc:" not in done.stderr, "libraries do not speak to the operator"
    assert not (Path(settings["KFM_HOME"]) / "endpoints.json").exists()
    return done.returncode, said[0]


async def test_a_door_that_must_not_open_starts_no_database(tmp_path: Path) -> None:
    home = tmp_path / "home"
    as_a_user = (sys.executable, "-m", "kfm_server")
    code, said = await no_start(as_a_user, KFM_HOME=str(home), KFM_HTTP_ADDRESS="0.0.0.0:0")
    assert (code, "KFM_TOKEN" in said) == (2, True)
    assert not home.exists()


@pytest.mark.requirement("R10")
@pytest.mark.parametrize(
    ("role", "why"),
    [
        ("api", "KFM_DATABASE_URL"),
        ("api,worker", "KFM_DATABASE_URL"),
        ("worker", "kfm worker"),
        ("", "api, runtime, worker"),
        ("api,apl", "api, runtime, worker"),
        ("runtime,runtime", "each once"),
    ],
)
async def test_roles_that_make_no_sense_are_named(tmp_path: Path, role: str, why: str) -> None:
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_ROLE=role)
    assert (code, "KFM_ROLE" in said, why in said) == (2, True, True), said


async def test_a_pattern_of_hosts_that_is_none_is_named(tmp_path: Path) -> None:
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_HTTP_FETCH_ALLOW="example.com, http://x/")
    assert (code, "KFM_HTTP_FETCH_ALLOW" in said, "'http://x/'" in said) == (2, True, True)


async def test_a_database_of_another_number_of_partitions_is_refused(tmp_path: Path, database: str) -> None:
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=database, KFM_PARTITIONS="4")
    assert code == 2
    assert re.search(r"16 partitions .*KFM_PARTITIONS .*4", said)


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
    ("name", "value"),
    [
        ("KFM_HOME", ""),
        ("KFM_GRPC_ADDRESS", "xx"),
        ("KFM_HTTP_ADDRESS", "127.0.0.1:70000"),
        ("KFM_ADVERTISED_ADDRESS", "xx"),
        ("KFM_ADVERTISED_ADDRESS", "0.0.0.0:50051"),
        ("KFM_ADVERTISED_ADDRESS", "127.0.0.1:0"),
        ("KFM_DATABASE_URL", "mysql://127.0.0.1/none"),
        ("KFM_DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:notaport/none"),
        ("KFM_DATABASE_URL", "postgresql://u:s3cret/x@127.0.0.1:1/none"),
        ("KFM_DATABASE_URL", "postgresql://u:s3cret@127.0.0.1:1/none?sslmode=s0metimes"),
        ("KFM_TOKEN", " "),
        ("KFM_TOKEN", "s3cret s3cret"),
        ("KFM_TOKEN", "s3cret\u00fc"),
        ("KFM_TOOLS", "nonsense"),
        ("KFM_TOOLS", "no_such_module:TOOLS"),
        ("KFM_TOOLS", "json:TOOLS"),
        ("KFM_TOOLS", "tests.e2e.test_no_start:SPOILT"),
        ("KFM_PARTITIONS", "0"),
        ("KFM_RETENTION_DAYS", "-1"),
        ("KFM_DRAIN_SECONDS", "nan"),
        ("KFM_DRAIN_SECONDS", "-1"),
        ("KFM_DRAIN_SECONDS", "inf"),
        ("KFM_DRAIN_SECONDS", "soon"),
        ("KFM_MAX_IN_FLIGHT", "1.5"),
        ("KFM_MAX_STREAMS", "many"),
        ("KFM_LOG_LEVEL", "loud"),
        ("KFM_TOKN", "s3cret"),
    ],
)
async def test_a_wrong_setting_is_one_line_that_names_it_and_tells_no_secret(
    tmp_path: Path, name: str, value: str
) -> None:
    code, said = await no_start(**{"KFM_HOME": str(tmp_path), name: value})
    assert (code, f"{name}" in said) == (2, True), said
    assert "s3cret" not in said


@pytest.mark.parametrize("token", ["", "s3cret"])
async def test_a_door_to_other_machines_asks_for_a_token_that_is_not_soon_guessed(
    tmp_path: Path, token: str
) -> None:
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_GRPC_ADDRESS="0.0.0.0:0", KFM_TOKEN=token)
    assert (code, "KFM_GRPC_ADDRESS" in said, "KFM_TOKEN" in said) == (2, True, True)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
async def test_a_database_that_does_not_answer_is_told_with_its_place_and_without_its_password(
    tmp_path: Path, host: str
) -> None:
    url = f"postgresql://nobody:s3cret@{host}/none"
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=url)
    assert (code, f"KFM_DATABASE_URL ({host}/none)" in said) == (1, True), said
    assert "s3cret" not in said


async def test_a_database_of_the_file_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('\ndatabase_url = "postgresql://nobody:s3cret@127.0.0.1:1/none"\n')
    code, said = await no_start(KFM_HOME=str(tmp_path))
    assert (code, "config.toml:2: database_url (127.0.0.1:1/none)" in said) == (1, True), said
    assert "KFM_DATABASE_URL" not in said


@pytest.mark.parametrize("home", ["file", "file/below", "locked"])
async def test_what_is_in_the_way_of_the_home_is_named(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked" / "postgres.lock").mkdir(parents=True)
    code, said = await no_start(KFM_HOME=str(tmp_path / home))
    assert (code, str(tmp_path / home) in said) == (1, True), said


async def test_a_database_that_is_not_there_is_named(tmp_path: Path, database: str) -> None:
    url = re.sub(r"/test_\d+", "/no_such_database", database)
    code, said = await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=url)
    assert (code, "no_such_database" in said) == (2, True)


@pytest.mark.parametrize("door", ["KFM_GRPC_ADDRESS", "KFM_HTTP_ADDRESS"])
async def test_a_port_that_is_taken_is_named(tmp_path: Path, database: str, door: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = await no_start(KFM_HOME=str(tmp_path), KFM_DATABASE_URL=database, **{door: address})
    assert (code, address.partition(":")[2] in said, "in use" in said) == (1, True, True)


async def test_a_host_that_is_not_of_this_machine_is_named(tmp_path: Path, database: str) -> None:
    code, said = await no_start(
        KFM_HOME=str(tmp_path),
        KFM_DATABASE_URL=database,
        KFM_GRPC_ADDRESS="192.0.2.1:0",
        KFM_TOKEN="long-enough",
    )
    assert (code, "gRPC cannot listen on 192.0.2.1:0" in said) == (1, True)


@pytest.mark.requirement("K2")
async def test_a_directory_of_packs_that_is_none_is_named_by_its_setting(
    tmp_path: Path, database: str
) -> None:
    (tmp_path / "file").touch()
    code, said = await no_start(
        KFM_HOME=str(tmp_path / "home"), KFM_DATABASE_URL=database, KFM_PACKS=str(tmp_path / "file")
    )
    assert (code, said) == (2, f"error: the server could not start: packs: {tmp_path}/file is no directory")
