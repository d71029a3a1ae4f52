"""The first turn of the readme, from each client, against a real server."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from xenocomm import Client, Outcome
from xenocomm._gen.types import PlanEvent, StepResultEvent, StepStatus, TurnStateEvent

from tests.support import forking
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("R2", "R3", "T1")

ROOT = Path(__file__).parents[2]
TODO = "Add a todo to buy milk, then show me all my tasks"
SUM = "what is (17 + 5) * 3 / 2 ?"


async def command(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
        env=clean | environment,
        cwd=ROOT,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def kfm(server: LiveServer, *arguments: str) -> tuple[int, str, str]:
    """One `kfm` command against the server."""
    return await command(*forking.kfm(), *arguments, KFM_ENDPOINT=server.grpc)


async def buf(server: LiveServer, rpc: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """One call with nothing but reflection: every message that came back."""
    code, out, err = await command(
        str(Path(sys.executable).parent / "buf"),
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        "-d",
        json.dumps(request),
        f"http://{server.grpc}/kfm.turn.v1.TurnService/{rpc}",
        PATH="",
    )
    assert code == 0, err
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(out.rstrip()):
        value, end = decoder.raw_decode(out[at:])
        found.append(value)
        at += end + len(out[at + end :]) - len(out[at + end :].lstrip())
    return found


@pytest.mark.requirement("E5", "R4")
async def test_the_sdk_gets_the_stored_todo_a_two_step_plan_and_its_history(live: Client) -> None:
    turn = await live.turns.start(TODO)
    events = [e async for e in turn.events()]
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    plans = [e.event for e in events if isinstance(e.event, PlanEvent)]
    assert [s.tool for s in plans[0].steps] == ["todo_store", "todo_store"]
    results = [e.event for e in events if isinstance(e.event, StepResultEvent)]
    assert [r.status for r in results] == [StepStatus.SUCCEEDED, StepStatus.SUCCEEDED]
    assert json.loads(results[0].output_json)["todo"]["title"] == "buy milk"
    last = events[-1].event
    assert isinstance(last, TurnStateEvent)
    assert last.outcome == Outcome.SUCCEEDED
    result = await turn.result()
    assert "buy milk" in (result.output[0].text or "")
    assert [len(s.attempts) for s in result.steps] == [1, 1]
    assert [e.sequence async for e in live.turns.history(turn.id)] == [e.sequence for e in events]


@pytest.mark.requirement("E5")
async def test_the_sdk_gets_the_sum(live: Client) -> None:
    turn = await live.turns.run(SUM)
    assert "33" in (turn.output[0].text or "")
    assert turn.planner == "rules"


@pytest.mark.requirement("E6")
async def test_the_command_line_gets_the_stored_todo_a_two_step_plan_and_its_history(
    live_server: LiveServer,
) -> None:
    code, out, err = await kfm(live_server, "run", TODO, "-o", "json")
    assert code == 0, err
    turn = json.loads(out)
    assert turn["outcome"] == "SUCCEEDED"
    assert "buy milk" in turn["output"][0]["text"]
    assert [s["definition"]["tool"] for s in turn["steps"]] == ["todo_store", "todo_store"]
    assert [a["status"] for s in turn["steps"] for a in s["attempts"]] == ["SUCCEEDED", "SUCCEEDED"]
    code, out, err = await kfm(live_server, "turn", "tail", turn["turn_id"], "-o", "json")
    assert code == 0, err
    history = [json.loads(line) for line in out.splitlines()]
    assert [e["sequence"] for e in history] == list(range(1, len(history) + 1))
    assert history[0]["type"] == "TurnEvent.v1"


@pytest.mark.requirement("E6")
async def test_the_command_line_gets_the_sum_and_takes_a_plan(live_server: LiveServer) -> None:
    step = {"key": "s1", "kind": "tool", "tool": "calculator", "arguments": {"expression": "6*7"}}
    (code, out, err), (given_code, given, given_err) = await asyncio.gather(
        kfm(live_server, "run", SUM, "-o", "json"),
        kfm(live_server, "run", "--data", json.dumps({"plan": {"steps": [step]}}), "-o", "json"),
    )
    assert code == 0, err
    assert "33" in json.loads(out)["output"][0]["text"]
    assert given_code == 0, given_err
    assert "42" in json.loads(given)["output"][0]["text"]


@pytest.mark.requirement("E1", "S3")
@pytest.mark.parametrize(("message", "tools", "answer"), [(TODO, 2, "buy milk"), (SUM, 1, "33")])
async def test_reflection_alone_runs_a_turn_with_readable_events(
    live_server: LiveServer, message: str, tools: int, answer: str
) -> None:
    request = {"turn": {"input": [{"text": message}]}, "idempotency_key": f"reflection-{tools}"}
    answers = await buf(live_server, "RunTurn", request)
    events = [u["event"] for a in answers for u in a["updates"] if "event" in u]
    # An `Any` is only readable when reflection also serves the events' own types.
    assert {e["payload"]["@type"].rpartition(".")[2] for e in events} >= {
        "TurnEvent",
        "PlanEvent",
        "StepEvent",
    }
    plan = next(e["payload"] for e in events if e["type"] == "PlanEvent.v1")
    assert len(plan["steps"]) == tools
    assert events[-1]["payload"]["outcome"] == "OUTCOME_SUCCEEDED"
    assert answer in events[-1]["payload"]["output"][0]["text"]
    (got,) = await buf(live_server, "GetTurn", {"turn_id": events[0]["turnId"]})
    assert got["turn"]["state"] == "TURN_STATE_FINISHED"
    assert len(got["turn"]["steps"]) == tools


@pytest.mark.requirement("R3")
async def test_a_message_that_is_not_understood_is_refused_with_a_reason(live: Client) -> None:
    turn = await live.turns.run("write me a sonnet about the sea", check=False)
    assert turn.outcome == Outcome.FAILED
    assert turn.error is not None
    assert turn.error.reason == "REASON_PLAN_NOT_POSSIBLE"
