"""The tools that read the system itself: bounded, for nobody who does not name them, for no other tenant."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kfm.type.v1 import type_pb2 as types
from kfm_server.canonical import canonical_json
from kfm_server.models import Personality
from kfm_server.ports.tools import ToolCall, ToolError
from kfm_server.tool_catalogue import ToolEntry, catalogue_digest
from kfm_server.tools.ops import MAX_LOOKED_AT, MAX_OPENED, bind_ops, ops_tools
from kfm_server.tools.ops_views import MAX_CHARACTERS
from kfm_server.tools.registry import build_registry
from kfm_server.turns.planners.agent import tools_of, with_own

pytestmark = pytest.mark.requirement("T1", "K1")
NAMES = {tool.spec.name for tool in ops_tools()}
REGISTRY = build_registry("", ops_tools())
CALL = ToolCall(key="k", attempt=1, epoch=1, tenant_id="default", principal="p", progress=print)


class Api:
    """Answers pages of turns, all with the same long texts."""

    def __init__(self, turns: int, text: str = "x" * 5000) -> None:
        self.turns = [
            {
                "turn_id": f"turn_{n}",
                "state": "TURN_STATE_FINISHED",
                "outcome": "OUTCOME_FAILED" if n % 2 else "OUTCOME_SUCCEEDED",
                "spec": {"personality": "" if n % 3 else "analyst", "input": [{"text": text}]},
                "usage": {"input_tokens": "100", "output_tokens": "10", "cost_nanos": "2000000", "model_calls": 1},
                "submitted_at": "2026-01-02T03:04:05Z",
                "finished_at": "2026-01-02T03:04:06.500Z",
                "error": {"reason": "REASON_TOOL_FAILED", "message": text},
            }
            for n in range(turns)
        ]  # fmt: skip
        self.asked: list[str] = []

    async def __call__(self, rpc: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(rpc)
        if rpc == "TurnService.ListTurns":
            start = int(fields["page_token"] or 0)
            end = start + fields["page_size"]
            assert 0 < fields["page_size"] <= 200
            return {
                "turns": self.turns[start:end],
                "next_page_token": str(end) if end < len(self.turns) else "",
            }
        assert rpc == "TurnService.GetTurn"
        usage = {"input_tokens": "100", "output_tokens": "10", "cost_nanos": "2000000", "model_calls": 1}
        attempts = [{"attempt": n, "usage": usage} for n in range(1, 31)]
        step = {
            "definition": {"key": "m1", "model": "small", "arguments_json": "y" * 9000},
            "attempts": attempts,
        }
        return {"turn": {**self.turns[0], "turn_id": fields["turn_id"], "steps": [step] * 200}}


async def ask(name: str, api: Any, **arguments: Any) -> dict[str, Any]:
    tools = {tool.spec.name: tool for tool in ops_tools()}
    bind_ops(tools, api)
    assert REGISTRY.catalogue[name].problem(arguments) == ""
    return await tools[name].call(arguments, CALL)


def test_only_a_personality_that_names_them_has_them() -> None:
    tools = REGISTRY.catalogue
    assert tools.keys() > NAMES
    assert tools_of(Personality(tools=None), tools).keys() == {"calculator", "todo_store"}
    assert tools_of(Personality(tools=("run_show", "calculator")), tools).keys() == {"run_show", "calculator"}
    assert with_own(Personality(tools=()), tools).keys() == {"calculator", "todo_store"}
    assert with_own(Personality(tools=("run_show",)), tools).keys() >= {"run_show", "todo_store"}


def test_a_catalogue_without_them_has_the_digest_that_it_always_had() -> None:
    echo = ToolEntry("echo", "Echoes.", types.EFFECT_CONTRACT_PURE, {"type": "object"})
    before = "e5fa430eead901b460acb00963a4c5cb92e3a4347009be903a66b9d83280bffd"
    assert catalogue_digest({"echo": echo}) == before
    assert catalogue_digest({"echo": replace(echo, reserved=True)}) != before
    assert catalogue_digest(with_own(Personality(), REGISTRY.catalogue)) == build_registry("").digest


@pytest.mark.parametrize(
    ("name", "arguments"), [("runs_list", {"limit": 100}), ("run_show", {"turn_id": "turn_1"})]
)
async def test_answers_are_bounded_and_say_what_they_leave_out(name: str, arguments: dict[str, Any]) -> None:
    answer = await ask(name, Api(300), **arguments)
    assert len(canonical_json(answer)) < MAX_CHARACTERS + 8_000
    assert answer.get("left_out", 0) + answer.get("steps_left_out", 0) > 0
    assert "untrusted data" in answer["notice"]


async def test_runs_are_looked_through_for_an_outcome_as_far_as_is_said() -> None:
    api = Api(1000, "short")
    answer = await ask("runs_list", api, outcome="failed", limit=3)
    assert [run["turn_id"] for run in answer["runs"]] == ["turn_1", "turn_3", "turn_5"]
    assert (answer["looked_at"], answer["there_are_more"]) == (MAX_LOOKED_AT, True)
    assert answer["by_error"] == {"REASON_TOOL_FAILED": MAX_LOOKED_AT // 2}, (
        "of all that fit, not of those shown"
    )
    assert answer["runs"][0] | {"usage": 0} == {
        "turn_id": "turn_1", "session_id": "", "state": "finished", "outcome": "failed", "seconds": 1.5, "message": "short",
        "personality": "(the default one)", "submitted_at": "2026-01-02T03:04:05Z", "error": "REASON_TOOL_FAILED: short", "usage": 0,
    }  # fmt: skip


async def test_the_last_hours_are_read_no_further_than_they_reach() -> None:
    api = Api(450, "short")
    now = datetime.now(UTC)
    for n, turn in enumerate(api.turns):
        turn["submitted_at"] = (now - timedelta(minutes=10 * n)).isoformat()
    answer = await ask("runs_list", api, hours=24, outcome="failed", limit=100)
    assert (answer["looked_at"], answer["there_are_more"]) == (144, False)
    assert api.asked == ["TurnService.ListTurns"] * 2
    assert len(answer["runs"]) == answer["by_error"]["REASON_TOOL_FAILED"] == 72
    assert abs(datetime.fromisoformat(answer["now"]) - now) < timedelta(minutes=5)
    spent = await ask("costs_summary", api, hours=1.5)
    assert (spent["turns"], spent["total"]["cost_usd"]) == (9, 0.018)
    assert (await ask("costs_summary", api, hours=1.5, turns=4))["turns"] == 4


async def test_costs_are_summed_by_personality_and_by_model() -> None:
    api = Api(120, "short")
    answer = await ask("costs_summary", api, turns=110)
    assert api.asked.count("TurnService.GetTurn") == MAX_OPENED
    assert answer["turns_whose_models_were_not_read"] == 10
    assert answer["total"] == {
        "input_tokens": 11_000,
        "output_tokens": 1_100,
        "model_calls": 110,
        "cost_usd": 0.22,
        "entries": 110,
    }
    assert [(row["name"], row["entries"]) for row in answer["by_personality"]] == [("(the default one)", 73), ("analyst", 37)]  # fmt: skip
    assert answer["by_model"][0]["name"] == "small"
    assert await ask("costs_summary", Api(0)) | {"total": 0, "now": ""} == {
        "now": "",
        "turns": 0, "from": "", "to": "", "total": 0, "by_personality": [], "by_model": [],
        "turns_whose_models_were_not_read": 0, "there_are_more": False,
    }  # fmt: skip


async def test_a_turn_of_another_tenant_reads_nothing() -> None:
    api = Api(3)
    for tool in ops_tools():
        tool.bind(api)
        other = ToolCall("k", 1, 1, "another", "p", print)
        with pytest.raises(ToolError, match="another tenant's"):
            await tool.call({"turn_id": "turn_1"}, other)
    assert api.asked == []


async def test_without_a_door_they_say_so() -> None:
    for tool in ops_tools():
        with pytest.raises(ToolError, match="no API"):
            await tool.call({}, CALL)
