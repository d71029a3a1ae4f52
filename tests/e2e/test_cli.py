"""The `kfm` command in a process of its own, against a real gRPC server: output and exit codes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.toy_door import Running, toy_door

pytestmark = pytest.mark.requirement("E6")


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with toy_door() as running:
        yield running


async def kfm(server: Running | None, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kfm_server.doors.cli.main",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"KFM_ENDPOINT": server.grpc if server else "127.0.0.1:1", "PATH": "", "COLUMNS": "200"},
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_run_prints_json_when_piped_and_a_table_when_asked(server: Running) -> None:
    code, out, _ = await kfm(server, "run", "hello")
    turn: dict[str, Any] = json.loads(out)
    assert code == 0
    assert turn["outcome"] == "SUCCEEDED"
    assert turn["output"] == [{"text": "hello"}]
    code, out, _ = await kfm(server, "run", "hi \x1b[31mred", "-o", "table")
    assert code == 0
    assert "hi \\x1b[31mred" in out


async def test_tail_writes_one_event_a_line(server: Running) -> None:
    turn = json.loads((await kfm(server, "turn", "start", "hello"))[1])
    _, out, _ = await kfm(server, "turn", "tail", turn["turn_id"])
    events = [json.loads(line) for line in out.splitlines()]
    assert [e["sequence"] for e in events] == [1, 2, 3]
    assert events[2]["payload"]["change"] == "FINISHED"


async def test_exit_codes_say_what_happened(server: Running) -> None:
    assert (await kfm(server, "turn", "get", "turn_9"))[0] == 3
    assert (await kfm(server, "run", "x", "--session", "bad"))[0] == 2
    assert (await kfm(server, "turn", "nonsense"))[0] == 2
    assert (await kfm(server, "run", "wait", "--wait", "0.1"))[0] == 8
    code, out, _ = await kfm(server, "turn", "list")
    [waiting] = [t["turn_id"] for t in json.loads(out) if t["state"] == "RUNNING"]
    assert (await kfm(server, "turn", "cancel", waiting))[0] == 0
    assert (await kfm(server, "turn", "wait", waiting))[0] == 6
    code, _, err = await kfm(server, "turn", "pause", waiting)
    assert code == 5
    assert json.loads(err)["error"]["reason"] == "REASON_TURN_FINISHED"


async def test_no_server_is_exit_code_nine() -> None:
    code, out, err = await kfm(None, "turn", "list")
    assert (code, out) == (9, "")
    assert "No server answers at 127.0.0.1:1" in err


async def test_dead_letters_are_listed_shown_and_dropped(server: Running) -> None:
    assert [d["dead_letter_id"] for d in json.loads((await kfm(server, "dlq", "list"))[1])] == ["evt_1"]
    assert json.loads((await kfm(server, "dlq", "show", "evt_1"))[1])["original"] == "AP8="
    assert (await kfm(server, "dlq", "drop", "evt_1"))[0] == 0
    assert (await kfm(server, "dlq", "drop", "evt_1"))[0] == 3


async def test_doctor_names_each_check(server: Running) -> None:
    code, out, _ = await kfm(server, "doctor")
    assert code == 0
    assert {c["check"] for c in json.loads(out)} == {"python", "grpcio", "home", "postgres", "server"}
