"""The `kfm` command in a process of its own, against a real gRPC server: output and exit codes."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kfm.catalogue.errors import Draining

from tests.e2e.toy_door import Running, toy_door
from tests.support import forking
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("E6")


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with toy_door() as running:
        yield running


async def kfm(
    server: Running | LiveServer | None,
    *arguments: str | bytes,
    stdin: bytes = b"",
    stdout: int = asyncio.subprocess.PIPE,
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    process = await begin(server, *arguments, stdout=stdout)
    out, err = await process.communicate(stdin)
    return process.returncode or 0, (out or b"").decode(), err.decode()


async def begin(
    server: Running | LiveServer | None,
    *arguments: str | bytes,
    stdout: int = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    """One command, started."""
    return await asyncio.create_subprocess_exec(
        *forking.kfm(),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env={"KFM_ENDPOINT": server.grpc if server else "127.0.0.1:1", "PATH": "", "COLUMNS": "200"},
    )


def error_of(err: str) -> dict[str, Any]:
    """The error that a command told as JSON, and that it told nothing else."""
    return json.loads(err)["error"]


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
    assert (await kfm(server, "dlq", "drop", "evt_1", "--yes"))[0] == 0
    assert (await kfm(server, "dlq", "drop", "evt_1", "--yes"))[0] == 3


async def test_doctor_names_each_check(server: Running) -> None:
    code, out, _ = await kfm(server, "doctor")
    assert code == 0
    tiers = ["sandbox interpreter", "sandbox process"]
    names = ["python", "grpcio", "home", "postgres", *tiers, "server"]
    assert [c["check"] for c in json.loads(out)] == names
    lines = (await kfm(server, "doctor", "-o", "jsonl"))[1].splitlines()
    told = {found["check"]: found for found in map(json.loads, lines)}
    assert all(told[name]["ok"] and told[name]["needed"] for name in names if name not in tiers)
    assert all(told[name]["detail"] and not told[name]["needed"] for name in tiers)
    assert (await kfm(server, "doctor", "-o", "id"))[1].splitlines() == names


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["run", "x", "--timeout", "inf"], "--timeout"),
        (["run", "x", "--timeout", "1e300"], "--timeout"),
        (["run", "x", "--timeout", "nan"], "--timeout"),
        (["run", "x", "--timeout", "soon"], "--timeout"),
        (["run", "x", "--wait", "nan"], "--wait"),
        (["run", "x", "--wait", "-1"], "--wait"),
        (["turn", "wait", "turn_1", "--timeout", "nan"], "--timeout"),
        (["turn", "wait", "turn_1", "--timeout", "-1"], "--timeout"),
        (["turn", "tail", "turn_1", "--after", "9" * 23], "--after"),
        (["turn", "list", "--state", "asleep"], "--state"),
        (["run", "x", "--label", "a"], "--label"),
        (["run", "x", "--token", "ü"], "token"),
        (["run", "x", "--token", "a\nb"], "token"),
        (["run", "x", "--endpoint", "foo"], "endpoint"),
        (["doctor", "--endpoint", "127.0.0.1:99999"], "endpoint"),
        (["run", b"\xff"], "argument 2"),
        (["run", "x", "--session", b"\xff"], "--session"),
        (["run", "-"], "text"),
        (["run", "--data", "-"], "--data"),
        (["run"], "text"),
        (["turn", "get"], "turn_id"),
    ],
)
async def test_wrong_use_is_one_error_that_names_the_option(arguments: list[str | bytes], field: str) -> None:
    code, out, err = await kfm(None, *arguments, stdin=b"ab\xff")
    told = error_of(err)
    assert (code, out, told["exit_code"]) == (2, "", 2)
    assert told["reason"] == "REASON_INVALID_ARGUMENT"
    assert [v["field"] for v in told["violations"]] == [field]
    assert field in told["message"]
    code, out, err = await kfm(None, *arguments, "-o", "table", stdin=b"ab\xff")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert field in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["nonsense"], ["run", "x", "--nonsense"], ["turn", "nonsense"]])
async def test_what_does_not_exist_is_named_with_where_to_look(arguments: list[str]) -> None:
    code, _, err = await kfm(None, *arguments)
    assert code == 2
    assert "nonsense" in error_of(err)["message"]
    assert "--help" in error_of(err)["message"]


@pytest.mark.parametrize("form", ["json", "table"])
async def test_output_that_cannot_be_written_is_an_error_and_no_traceback(server: Running, form: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, _, err = await kfm(server, "run", "hello", "-o", form, stdout=full)
    finally:
        os.close(full)
    assert code == 1
    assert "the output could not be written: No space left on device" in err
    assert err.count("\n") == 1


async def test_help_is_short_and_long_and_the_version_is_told() -> None:
    short, long = await kfm(None, "-h"), await kfm(None, "--help")
    assert short == long
    assert "130 interrupted" in short[1]
    assert (await kfm(None, "turn", "wait", "-h"))[0] == 0
    code, out, _ = await kfm(None, "--version")
    assert (code, out.split()[0], "schema" in out) == (0, "kfm", True)


@pytest.mark.parametrize("form", ["json", "table"])
async def test_an_interrupted_run_says_how_to_come_back(server: Running, form: str) -> None:
    process = await begin(server, "run", "wait", "-o", form)
    async with asyncio.timeout(30):
        await server.turns.waited.wait()
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    [turn_id] = server.turns.turns
    assert (process.returncode, out) == (130, b"")
    assert f"kfm turn tail {turn_id}" in err.decode()
    assert f"kfm turn cancel {turn_id}" in err.decode()
    assert "Traceback" not in err.decode()
    assert len(server.turns.turns[turn_id]) == 1


async def test_a_run_during_a_drain_is_no_server_and_not_late(server: Running) -> None:
    server.turns.fail = [Draining(retry_after_ms=60_000)]
    code, _, err = await kfm(server, "run", "hello")
    assert (code, error_of(err)["reason"]) == (9, "REASON_DRAINING")


async def test_a_failed_run_tells_its_error_once_and_by_its_own_reason(live_server: LiveServer) -> None:
    parent, child = os.openpty()
    try:
        code, _, err = await kfm(live_server, "run", "sing me a song", stdout=child)
        shown = os.read(parent, 65536).decode()
    finally:
        os.close(parent)
        os.close(child)
    assert code == 6
    assert "FAILED" in shown
    assert "error" not in shown
    assert err.count("[REASON_PLAN_NOT_POSSIBLE]") == err.count("error:") == err.count("\n") == 1


HUMAN = '{"plan": {"steps": [{"key": "ask", "kind": "human", "instructions": "May I?"}]}}'


async def test_a_run_that_waits_for_a_person_says_what_to_type(live_server: LiveServer) -> None:
    code, out, err = await kfm(live_server, "run", "--data", HUMAN)
    turn_id = json.loads(out)["turn_id"]
    told = error_of(err)
    assert (code, told["reason"], told["exit_code"]) == (7, "WAIT_REASON_HUMAN", 7)
    assert told["metadata"] == {
        "turn_id": turn_id,
        "wait_reason": "HUMAN",
        "verb": "answer",
        "step_key": "ask",
    }
    code, _, err = await kfm(live_server, "turn", "wait", turn_id, "-o", "table")
    assert code == 7
    assert f"kfm turn answer {turn_id} ask JSON" in err
    _, out, _ = await kfm(live_server, "turn", "explain", turn_id, "-o", "table")
    assert "human of step ask" in out
    assert f"kfm turn answer {turn_id} ask JSON" in out
    assert f"kfm turn cancel {turn_id}" in out
    assert "[" not in out
    assert (await kfm(live_server, "turn", "pause", turn_id))[0] == 0
    code, _, err = await kfm(live_server, "turn", "wait", turn_id, "-o", "table")
    assert code == 7
    assert f"kfm turn resume {turn_id}" in err
    assert (await kfm(live_server, "turn", "resume", turn_id))[0] == 0
    assert (await kfm(live_server, "turn", "answer", turn_id, "ask", "true"))[0] == 0
    assert (await kfm(live_server, "turn", "wait", turn_id))[0] == 0
