"""The `kfm` command against a whole server with a scripted model: every noun, every format, exit codes, a terminal."""

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kfm_server.doors.cli.describing import EXIT_CODES
from xenocomm import SyncClient
from xenocomm._gen.errors import ERRORS
from xenocomm.testing import ServerInProcess, server

from tests.support import forking
from tests.support.agent import SCRIPT

pytestmark = pytest.mark.requirement("E6")
QUESTION = '{"plan": {"steps": [{"key": "ask", "kind": "human", "instructions": "Well?"}]}}'


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def running() -> Generator[ServerInProcess]:
    with server(script=SCRIPT, token="s3cret-token") as found:
        yield found


@pytest.fixture
def sdk(running: ServerInProcess) -> Generator[SyncClient]:
    with running.sync_client(timeout=15) as client:
        yield client


def environment(running: ServerInProcess, **more: str) -> dict[str, str]:
    base = {
        "KFM_ENDPOINT": running.endpoint,
        "KFM_TOKEN": "s3cret-token",
        "COLUMNS": "250",
        "HOME": "/nowhere",
    }
    return {**base, "PATH": os.environ["PATH"], **more}


async def begin(running: ServerInProcess, *words: str, **more: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *forking.kfm(), *words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment(running, **more)
    )


async def kfm(running: ServerInProcess, *words: str, stdin: str = "", **more: str) -> Done:
    process = await begin(running, *words, **more)
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin.encode())
    return Done(process.returncode or 0, out.decode(), err.decode())


async def test_sessions_are_listed_shown_and_told_in_every_format(
    running: ServerInProcess, sdk: SyncClient
) -> None:
    turn = sdk.turns.start("hello")
    turn.result()
    session = turn.session_id
    assert session in [s["session_id"] for s in (await kfm(running, "session", "list")).json]
    assert session in (await kfm(running, "session", "list", "-o", "id")).out.split()
    shown = await kfm(running, "session", "show", session, "--fields", "turns,last_turn_id")
    assert shown.json == {"turns": 1, "last_turn_id": turn.id}
    lines = (
        await kfm(running, "session", "messages", session, "-o", "jsonl", "--fields", "role,parts.0.text")
    ).out
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"role": "USER", "parts.0.text": "hello"},
        {"role": "AGENT", "parts.0.text": "You said hello."},
    ]
    table = await kfm(running, "session", "messages", session, "-o", "table")
    assert re.search(r"AGENT +You said hello\.", table.out)
    missing = await kfm(running, "session", "show", "ses_nothing")
    assert (missing.code, json.loads(missing.err)["error"]["reason"]) == (3, "REASON_SESSION_NOT_FOUND")


async def test_fields_that_are_not_there_are_refused_with_those_that_are(running: ServerInProcess) -> None:
    await kfm(running, "run", "hello")
    done = await kfm(running, "turn", "list", "--fields", "turn_id,nonsense")
    assert done.code == 2
    error = json.loads(done.err)["error"]
    assert error["violations"][0]["field"] == "--fields"
    assert "'nonsense', only: turn_id" in error["message"]


async def test_personalities_and_the_configuration_are_shown(running: ServerInProcess) -> None:
    names = (await kfm(running, "personality", "list", "-o", "id")).out.split()
    assert "scripted" in names
    found = (await kfm(running, "config", "show", "models.scripted")).json
    assert {v["name"] for v in found} >= {"models.scripted.provider", "models.scripted.script"}
    whole = await kfm(running, "config", "show", "-o", "table")
    assert "s3cret-token" not in whole.out + whole.err
    assert re.search(r"limits\.max_steps +\d+ +default +\*", whole.out)


async def test_a_configuration_that_cannot_be_used_is_refused_and_the_one_before_stays(
    running: ServerInProcess,
) -> None:
    file = running.home / "config.toml"
    before = file.read_text()
    try:
        file.write_text(f"{before}\n[limits]\nmax_steps = 9\n")
        assert "limits.max_steps" in (await kfm(running, "config", "reload")).json["changed"]
        file.write_text(f"{before}\n[limits]\nmax_stepz = 9\n")
        refused = await kfm(running, "config", "reload")
        assert (refused.code, json.loads(refused.err)["error"]["reason"]) == (2, "REASON_CONFIG_INVALID")
        assert "max_stepz" in refused.err
        shown = await kfm(running, "config", "show", "limits.max_steps")
        assert shown.json[0]["value_json"] == "9"
        assert "latest reading failed" in shown.err
    finally:
        file.write_text(before)
        assert (await kfm(running, "config", "reload")).code == 0


async def test_a_message_comes_from_standard_input_and_the_answer_fits_a_schema(
    running: ServerInProcess, tmp_path: Path
) -> None:
    piped = await kfm(running, "run", "-", "--fields", "outcome,output.0.text", stdin="hello there")
    assert piped.json == {"outcome": "SUCCEEDED", "output.0.text": "You said hello there."}
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "required": ["result"]}')
    done = await kfm(running, "run", "structured", "--output-schema", str(schema))
    assert json.loads(done.json["output"][0]["data_json"])["result"] == 42
    for text in ("nonsense", "[]", '{"not":' * 3000 + "{}" + "}" * 3000):
        schema.write_text(text)
        wrong = await kfm(running, "run", "structured", "--output-schema", str(schema))
        assert wrong.code == 2 and "--output-schema" in wrong.err
    assert (await kfm(running, "run", "structured", "--output-schema", "/no/such")).code == 2


async def test_limits_are_flags_and_hold(running: ServerInProcess) -> None:
    done = await kfm(running, "run", "compute 1+1", "--max-model-calls", "1")
    assert (done.code, json.loads(done.err)["error"]["reason"]) == (6, "REASON_BUDGET_EXCEEDED")
    kept = (await kfm(running, "run", "hello", "--max-cost", "0.25", "--max-tokens", "90000")).json
    assert kept["spec"]["limits"] == kept["spec"]["limits"] | {
        "max_cost_nanos": 250000000,
        "max_tokens": 90000,
    }
    for cost in ("much", "0", "-1"):
        wrong = await kfm(running, "run", "hello", "--max-cost", cost)
        assert wrong.code == 2 and "max_cost" in wrong.err


async def test_a_turn_that_ended_is_explained_by_its_end_and_what_runs_it_again(
    running: ServerInProcess,
) -> None:
    failed = (await kfm(running, "run", "compute 1+1", "--max-model-calls", "1")).json["turn_id"]
    told = (await kfm(running, "turn", "explain", failed, "-o", "table")).out
    assert "FAILED" in told and "[REASON_BUDGET_EXCEEDED]" in told
    assert f"kfm turn retry {failed}" in told and f"kfm turn fork {failed} STEP" in told
    done = (await kfm(running, "run", "hello")).json["turn_id"]
    told = (await kfm(running, "turn", "explain", done, "-o", "table")).out
    assert "SUCCEEDED" in told and "retry" not in told
    assert (await kfm(running, "turn", "explain", done)).json == {"state": "FINISHED", "waits": []}


async def test_a_setting_that_is_not_there_is_not_found(running: ServerInProcess) -> None:
    wrong = await kfm(running, "config", "show", "nope")
    assert (wrong.code, wrong.out, "nope" in wrong.err) == (3, "", True)
    assert json.loads(wrong.err)["error"]["exit_code"] == 3


async def test_labels_that_no_turn_has_are_refused(running: ServerInProcess) -> None:
    wrong = await kfm(running, "events", "tail", "--label", "Bad Label!=x")
    assert wrong.code == 2 and "Bad Label!" in wrong.err


async def test_a_turn_that_rules_planned_in_place_of_a_model_says_why() -> None:
    script = {"rules": [{"failure": {"kind": "status", "status": 400}, "reply": {"text": "no"}}]}
    with server(script=script, planner="hybrid", token="s3cret-token") as failing:
        told = (await kfm(failing, "run", "compute 17 * 3", "-o", "table")).out
    assert "planned by rules, because: " in told and "[REASON_PROVIDER_REJECTED]" in told


async def test_a_tail_begins_where_it_is_told_and_shows_output_as_it_forms(running: ServerInProcess) -> None:
    turn_id = (await kfm(running, "turn", "start", "hello", "-o", "id")).out.strip()
    lines = (await kfm(running, "turn", "tail", turn_id, "--from", "3", "--deltas")).out.splitlines()
    sequences = [json.loads(line)["sequence"] for line in lines if "sequence" in json.loads(line)]
    assert sequences == list(range(3, 3 + len(sequences)))
    ids = (await kfm(running, "turn", "tail", turn_id, "-o", "id")).out.split()
    assert ids[0] == f"{turn_id}.1"


async def test_ctrl_c_leaves_a_tail_and_says_where_to_go_on(
    running: ServerInProcess, sdk: SyncClient
) -> None:
    turn = sdk.turns.start(json.loads(QUESTION))
    process = await begin(running, "turn", "tail", turn.id)
    assert process.stdout is not None
    last = 0
    async with asyncio.timeout(30):
        while last < sdk.turns.get(turn.id).last_sequence:
            last = json.loads(await process.stdout.readline())["sequence"]
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    told = json.loads(err)["error"]
    assert (told["reason"], told["exit_code"]) == ("INTERRUPTED", 130)
    follow = told["metadata"]["follow"]
    assert follow == f"kfm turn tail {turn.id} --from {last + 1}"
    turn.answer("ask", "1")
    rest = await kfm(running, *follow.split()[1:])
    assert json.loads(rest.out.splitlines()[0])["sequence"] == last + 1


@pytest.mark.requirement("R11")
async def test_events_of_all_turns_are_followed_and_gone_on_with(running: ServerInProcess) -> None:
    for name in ("one", "two", "other"):
        label = "test=other" if name == "other" else "test=tail"
        await kfm(running, "run", name, "--label", label)
    words = ("events", "tail", "--type", "TurnEvent.v1", "--label", "test=tail")
    first = await kfm(running, *words, "--from", "beginning", "--limit", "2")
    found = [json.loads(line) for line in first.out.splitlines()]
    assert [e["type"] for e in found] == ["TurnEvent.v1"] * 2
    process = await begin(running, *words, "--from", "beginning", "-o", "table")
    assert process.stdout is not None
    async with asyncio.timeout(30):
        for event in found:
            assert event["turn_id"] in (await process.stdout.readline()).decode()
        # The next event is waited for, so that the cursor stands behind these two.
        late = (await kfm(running, "run", "late", "--label", "test=tail")).json["turn_id"]
        assert late in (await process.stdout.readline()).decode()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 130
    go_on = re.search(r"go on with: kfm (.*)", err.decode())
    assert go_on is not None

    newest = (await kfm(running, "run", "newest", "--label", "test=tail")).json["turn_id"]
    again = await kfm(running, *shlex.split(go_on[1]), "--limit", "1", "-o", "jsonl")
    assert json.loads(again.out)["turn_id"] in (
        late,
        newest,
    )  # not one of those before, and not another label's
    wrong = await kfm(running, "events", "tail", "--type", "Nothing.v1")
    assert (wrong.code, "Nothing" in wrong.err) == (2, True)


def on_a_terminal(running: ServerInProcess, words: Sequence[str], **more: str) -> tuple[int, str]:
    """What a command writes to a terminal, both of its outputs together."""
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [*forking.kfm(), *words],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(running, TERM="xterm", **more),
        start_new_session=True,
    )
    os.close(terminal)
    written = b""
    try:
        while chunk := os.read(master, 65536):
            written += chunk
    except OSError:
        pass  # the terminal is gone with its last user
    finally:
        os.close(master)
    return process.wait(30), written.decode().replace("\r\n", "\n")


async def test_a_terminal_shows_the_answer_as_it_forms_once_and_what_is_done_for_it(
    running: ServerInProcess,
) -> None:
    code, shown = await asyncio.to_thread(on_a_terminal, running, ["run", "compute 6*7"], NO_COLOR="1")
    assert code == 0
    assert shown.splitlines().count("It is 6*7 = 42.") == 1
    assert 'calculator {"expression":"6*7"}' in shown.split("It is")[0]
    assert "2 model calls" in shown
    assert "\x1b[" not in shown
    code, shown = await asyncio.to_thread(on_a_terminal, running, ["run", "twice"], NO_COLOR="1")
    assert "(once more, from the start)" in shown
    assert shown.splitlines().count("one two three four") == 1
    code, shown = await asyncio.to_thread(on_a_terminal, running, ["run", "--data", QUESTION], NO_COLOR="1")
    assert code == 7 and "kfm turn answer" in shown


async def test_what_cannot_be_taken_back_is_asked_on_a_terminal_and_never_of_a_program(
    running: ServerInProcess,
) -> None:
    refused = await kfm(running, "dlq", "drop", "evt_1")
    assert refused.code == 2 and "--yes" in refused.err
    assert (await kfm(running, "dlq", "drop", "evt_1", "--yes")).code == 3
    code, shown = await asyncio.to_thread(on_a_terminal, running, ["--no-input", "dlq", "drop", "evt_1"])
    assert code == 2 and "--yes" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_gets_its_script(running: ServerInProcess, shell: str) -> None:
    done = await kfm(running, "completion", shell)
    assert done.code == 0 and "_KFM_COMPLETE" in done.out


async def test_ids_are_completed_from_the_running_server(running: ServerInProcess, sdk: SyncClient) -> None:
    turn = sdk.turns.start("hello")

    async def complete(line: str, **more: str) -> str:
        asked = {
            "_KFM_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        }
        return (await kfm(running, **(asked | more))).out

    assert turn.id in await complete(f"kfm turn get {turn.id[:8]}")
    assert turn.session_id in await complete("kfm session show ses_")
    assert "StepResultEvent.v1" in await complete("kfm events tail --type Step")
    assert "turn" in (await complete("kfm tu")).split()
    assert (await complete("kfm turn get turn_", KFM_ENDPOINT="127.0.0.1:1")).strip() == ""


async def test_the_command_tree_is_told_as_json_and_is_what_the_help_shows(running: ServerInProcess) -> None:
    tree = (await kfm(running, "--describe")).json
    commands: dict[str, Any] = {}

    def walk(node: Any) -> None:
        commands[node["command"]] = node
        for below in node.get("commands", []):
            walk(below)

    walk(tree)
    assert set(commands) >= {
        "kfm run",
        "kfm turn tail",
        "kfm events tail",
        "kfm config reload",
        "kfm session show",
    }
    assert all(node["help"] for node in commands.values())
    parameters = {p["name"]: p for p in commands["kfm run"]["parameters"]}
    assert parameters["--output"]["choices"] == ["table", "json", "jsonl", "id"]
    assert parameters["--label"]["repeatable"] is True
    assert parameters["text"]["kind"] == "argument"
    shown = (await kfm(running, "turn", "tail", "--help")).out
    assert all(p["name"] in shown for p in commands["kfm turn tail"]["parameters"] if p["kind"] == "option")
    assert {int(code) for code in tree["exit_codes"]} == set(EXIT_CODES)


def test_every_failure_has_an_exit_code_that_is_documented() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert {row.exit_code for row in ERRORS.values()} <= set(EXIT_CODES)
    for code in EXIT_CODES:
        assert f"| {code} |" in readme


async def test_exit_codes_of_what_a_server_refuses(running: ServerInProcess) -> None:
    denied = await kfm(running, "turn", "list", KFM_TOKEN="wrong")
    assert (denied.code, denied.out) == (4, "")
    await kfm(running, "turn", "start", "hello", "--key", "mine")
    conflict = await kfm(running, "turn", "start", "other", "--key", "mine")
    assert conflict.code == 5
    late = await kfm(running, "run", "--data", QUESTION, "--timeout", "60")
    assert late.code == 7  # it waits for a person until then
    turn_id = json.loads(late.out)["turn_id"]
    running.clock.advance(61)
    timed_out = await kfm(running, "turn", "wait", turn_id)
    assert timed_out.code == 8
    assert (await kfm(running, "turn", "list", KFM_ENDPOINT="127.0.0.1:1")).code == 9
    bare = await kfm(running)
    assert bare.code == 2 and "Usage" in bare.out + bare.err


async def test_a_profile_names_the_server(running: ServerInProcess, tmp_path: Path) -> None:
    (tmp_path / "kfm").mkdir()
    text = f'[mine]\nendpoint = "{running.endpoint}"\ntoken = "s3cret-token"\n'
    (tmp_path / "kfm" / "profiles.toml").write_text(text)
    bare = {"KFM_ENDPOINT": "", "KFM_TOKEN": "", "XDG_CONFIG_HOME": str(tmp_path)}
    assert (await kfm(running, "--profile", "mine", "turn", "list", **bare)).code == 0
    assert (await kfm(running, "turn", "list", **bare, KFM_PROFILE="mine")).code == 0
    missing = await kfm(running, "--profile", "other", "turn", "list", **bare)
    assert missing.code == 2 and "only: mine" in missing.err
