"""The packs that ship, in a server that runs: their own cases hold, and `ops` reads this very system for nobody else."""

import json
from typing import Any

import pytest
from kfm.pack.v1 import manifest_pb2 as pb
from kfm_server.personalities import SHIPPED
from kfm_server.personalities.pack import Pack, load, plain
from xenocomm import Client
from xenocomm._gen.types import Outcome, StepState, Turn

from tests.support.live import LiveServer
from tests.support.model_server import ModelServer
from tests.support.plans import call, given

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K1", "K3"), pytest.mark.timeout(120)]
PACKS = {pack.name: pack for pack in (load(at) for at in sorted(SHIPPED.iterdir()) if at.is_dir())}
MESSAGES = [
    pytest.param(pack, case, id=f"{pack.name}: {case.name}")
    for pack in PACKS.values()
    for tests in pack.tests.values()
    for case in tests.cases
    if case.HasField("message")
]
MISTAKES = {
    "arguments that were wrong are mended once",
    "a run that is not there is told as such, and the answer says so",
}
OPS = ("runs_list", "dead_letters_list", "costs_summary", "pools_list", "config_show")


def rules_of(case: pb.PackCase) -> list[dict[str, Any]]:
    """What the model of a case says, for the development server."""
    rules: list[dict[str, Any]] = []
    for step, said in enumerate(case.model_says):
        words = said.split(maxsplit=2)
        called = words[0] == "tool" and len(words) == 3
        reply = {"tools": [{"name": words[1], "raw": words[2]}]} if called else {"text": said}
        rules.append({"step": step, "reply": reply})
    return rules


def outputs(turn: Turn) -> dict[str, Any]:
    """What its steps gave, by key."""
    return {s.definition.key: json.loads(s.output_json) for s in turn.steps if s.definition and s.output_json}


def test_three_packs_ship() -> None:
    assert set(PACKS) == {"assistant", "analyst", "ops"}
    assert all(pack.tests and len(pack.personality.instructions) < 3_000 for pack in PACKS.values())


@pytest.mark.parametrize(("pack", "case"), MESSAGES)
async def test_what_their_tests_say_of_messages_holds(
    pack: Pack, case: pb.PackCase, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(*rules_of(case))
    handle = await model_live.turns.start(case.message, personality=pack.name)
    turn = await handle.result()
    answer = "".join(part.text or "" for part in turn.output)
    assert all(text in answer for text in case.expect.contains), answer
    assert [s.definition.tool for s in turn.steps if s.definition and s.definition.tool] == [
        *case.expect.calls
    ]
    failed = [step for step in turn.steps if step.state != StepState.SUCCEEDED]
    assert len(failed) == (case.name in MISTAKES)
    system = model_server.requests()[0]["body"]["messages"][0]
    assert system["content"].startswith(pack.personality.instructions[:200])


async def test_what_their_tests_say_of_tools_holds_in_the_sandbox(live: Client) -> None:
    cases = [c for tests in PACKS["analyst"].tests.values() for c in tests.cases if c.HasField("call")]
    calls = [call(f"c{n}", c.call.tool, **plain(c.call.arguments)) for n, c in enumerate(cases)]
    good = [step for step, case in zip(calls, cases, strict=True) if not case.expect.error]
    turn = await (await live.turns.start(given(*good), personality="analyst")).result()
    found = outputs(turn)
    assert len(found) == len(good)
    for step, case in zip(calls, cases, strict=True):
        if case.expect.error:
            failed = await (await live.turns.start(given(step), personality="analyst")).result(check=False)
            assert failed.error is not None
            assert case.expect.error in failed.error.message
            continue
        value = found[step["key"]]
        text = json.dumps(value, separators=(",", ":"), sort_keys=True)
        assert all(part in text for part in case.expect.contains), text
        if case.expect.HasField("output"):
            assert value == plain(case.expect.output), case.name


async def test_ops_reads_this_very_system(
    model_live: Client, model_live_server: LiveServer, model_server: ModelServer
) -> None:
    model_server.play({"reply": {"text": "Hello.", "input_tokens": 7, "output_tokens": 5}})
    paid = await model_live.turns.run("hello", personality="assistant")
    failed = await model_live.turns.run(
        given(call("s", "calculator", expression="1/0")), personality="analyst", check=False
    )
    plan = given(*(call(name, name) for name in OPS), call("show", "run_show", turn_id=failed.turn_id))
    found = outputs(await model_live.turns.run(plan, personality="ops"))
    runs = {run["turn_id"]: run for run in found["runs_list"]["runs"]}
    assert runs[paid.turn_id]["outcome"] == "succeeded"
    assert runs[failed.turn_id]["error"].startswith("REASON_")
    assert runs[paid.turn_id]["usage"]["cost_usd"] > 0
    shown = found["show"]
    assert (shown["run"]["outcome"], shown["planner"], shown["waits"]) == ("failed", "given", [])
    assert shown["steps"][0]["attempts"][0]["error"] in shown["run"]["error"]
    by_model = {row["name"]: row for row in found["costs_summary"]["by_model"]}
    assert by_model["direct"]["input_tokens"] >= 7
    assert {row["name"] for row in found["costs_summary"]["by_personality"]} >= {"assistant", "analyst"}
    assert found["dead_letters_list"]["dead_letters"] == []
    assert found["pools_list"]["workers"] == []
    names = {row["name"] for row in found["config_show"]["settings"]}
    assert {"limits.max_steps", "models.direct.api_key"} <= names
    assert model_live_server.environment["STUB_KEY"] not in json.dumps(found)


async def test_what_ops_asks_for_wrongly_is_told_as_the_api_tells_it(model_live: Client) -> None:
    plan = given(call("s", "run_show", turn_id="turn_0"))
    turn = await model_live.turns.run(plan, personality="ops", check=False)
    assert turn.error is not None
    assert "TurnService.GetTurn" in turn.error.message


@pytest.mark.requirement("T2", "ST7")
@pytest.mark.parametrize("tool", ["runs_list", "run_show", "config_show"])
async def test_a_hostile_model_of_another_personality_cannot_read_the_system(
    tool: str, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(
        {"step": 0, "reply": {"tools": [{"name": tool, "raw": '{"turn_id": "turn_1"}'}]}},
        {"reply": {"text": "Done."}},
    )
    turn = await model_live.turns.run("hello", personality="assistant")
    (refused,) = [step for step in turn.steps if step.definition and step.definition.tool]
    assert (refused.state, refused.output_json) == (StepState.SKIPPED, "")
    offered = [t["function"]["name"] for t in model_server.requests()[0]["body"]["tools"]]
    assert not set(offered) & {*OPS, "run_show"}
    given_one = await model_live.turns.run(
        given(call("s", "runs_list")), personality="assistant", check=False
    )
    assert given_one.outcome == Outcome.FAILED
    listed = {p.name: set(p.tools) for p in await model_live.personalities.list()}
    assert tool not in listed["assistant"]
    assert tool in listed["ops"]
