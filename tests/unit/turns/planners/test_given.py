"""A client's own plan is read strictly."""

import json
from typing import Any

import pytest
from kfm.type.v1 import type_pb2 as types
from kfm_server.turns.planners import Refused, plan

pytestmark = pytest.mark.requirement("R3")


def _plan(body: Any) -> Any:
    return plan((types.Part(data_json=body if isinstance(body, str) else json.dumps(body)),), {})


def test_all_that_a_step_may_say_is_taken_over() -> None:
    planned = _plan(
        {
            "plan": {
                "steps": [
                    {"key": "ask", "kind": "human", "instructions": "May I?", "timeout_ms": 1500},
                    {"key": "do", "tool": "calculator", "arguments": {"b": 1, "a": 2}, "depends_on": ["ask"]},
                ]
            }
        }
    )
    ask, do = planned.steps
    assert planned.planner == "given"
    assert (ask.kind, ask.instructions, ask.timeout.ToMilliseconds()) == (
        types.STEP_KIND_HUMAN,
        "May I?",
        1500,
    )
    assert (do.kind, do.tool, list(do.depends_on)) == (types.STEP_KIND_TOOL, "calculator", ["ask"])
    assert do.arguments_json == '{"a":2,"b":1}'
    assert not do.HasField("timeout")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{", "input[0]: not JSON"),
        ([], "input[0]: an object is needed"),
        ({}, "input[0].plan: is missing"),
        ({"plan": {}}, "plan.steps: is missing"),
        ({"plan": {"steps": []}}, "plan.steps: a list with at least one step"),
        ({"plan": {"steps": [1]}}, "plan.steps[0]: an object is needed"),
        ({"plan": {"steps": [{}]}}, "plan.steps[0].key: is missing"),
        ({"plan": {"steps": [{"key": "a", "tol": "x"}]}}, "plan.steps[0].tol: unknown"),
        ({"plan": {"steps": [{"key": "a"}], "goal": 1}}, "plan.goal: unknown"),
        ({"plan": {"steps": [{"key": 1}]}}, "plan.steps[0].key: a text"),
        ({"plan": {"steps": [{"key": "a", "kind": "model"}]}}, "plan.steps[0].kind: must be one of"),
        ({"plan": {"steps": [{"key": "a", "arguments": "{}"}]}}, "plan.steps[0].arguments: an object"),
        ({"plan": {"steps": [{"key": "a", "depends_on": "b"}]}}, "plan.steps[0].depends_on: a list"),
        ({"plan": {"steps": [{"key": "a", "timeout_ms": 0}]}}, "plan.steps[0].timeout_ms: a whole number"),
        ({"plan": {"steps": [{"key": "a", "timeout_ms": True}]}}, "plan.steps[0].timeout_ms: a whole number"),
    ],
)
def test_anything_else_is_refused_with_its_path(body: Any, why: str) -> None:
    refused = _plan(body)
    assert isinstance(refused, Refused)
    assert refused.reason == "REASON_PLAN_INVALID"
    assert why in refused.message


def test_a_plan_beside_text_is_refused_because_the_text_would_be_ignored() -> None:
    parts = (types.Part(text="but do not run it"), types.Part(data_json='{"plan":{"steps":[{"key":"a"}]}}'))
    assert isinstance(plan(parts, {}), Refused)
