"""A plan that passes can be run; one that does not is told what is wrong."""

import json
from typing import Any

import pytest
from google.protobuf import duration_pb2
from hypothesis import given
from hypothesis import strategies as st
from kfm.type.v1 import type_pb2 as types
from kfm_server.tools.registry import build_registry
from kfm_server.turns.plan_validation import validate_plan
from kfm_server.turns.planners import Refused, ToolEntry
from kfm_server.turns.planners import given as given_planner

pytestmark = pytest.mark.requirement("R3", "R4")

_BOOK = ToolEntry(
    "book", "Books.", types.EFFECT_CONTRACT_COMPENSATABLE, {"type": "object"}, compensation="unbook"
)
_UNBOOK = ToolEntry("unbook", "Undoes it.", types.EFFECT_CONTRACT_IDEMPOTENT, {"type": "object"})
_TOOLS = {**build_registry().catalogue, "book": _BOOK, "unbook": _UNBOOK}


def _step(key: str, expression: Any = "1 + 1", *after: str, **changes: Any) -> types.PlanStep:
    fields: dict[str, Any] = {
        "key": key,
        "kind": types.STEP_KIND_TOOL,
        "tool": "calculator",
        "arguments_json": json.dumps({"expression": expression}),
        "depends_on": after,
    }
    return types.PlanStep(**(fields | changes))


def _accepted(*steps: types.PlanStep) -> tuple[types.PlanStep, ...]:
    plan = validate_plan(steps, _TOOLS, 10)
    assert not isinstance(plan, Refused), plan
    return plan


def _refused(*steps: types.PlanStep, most: int = 10) -> Refused:
    plan = validate_plan(steps, _TOOLS, most)
    assert isinstance(plan, Refused)
    return plan


def test_effects_and_compensations_are_pinned_from_the_catalogue() -> None:
    lying = _step("s1", effect=types.EFFECT_CONTRACT_AT_MOST_ONCE, compensation_tool="unbook")
    booking = _step("s2", tool="book", arguments_json="")
    first, second = _accepted(lying, booking)
    assert (first.effect, first.compensation_tool) == (types.EFFECT_CONTRACT_PURE, "")
    assert (second.effect, second.compensation_tool) == (types.EFFECT_CONTRACT_COMPENSATABLE, "unbook")
    assert lying.effect == types.EFFECT_CONTRACT_AT_MOST_ONCE, "the steps given are not changed"


def test_a_reference_implies_the_dependency() -> None:
    arguments = {"expression": "x", "variables": {"x": {"$ref": "s1#/result"}}}
    plan = _accepted(_step("s2", arguments_json=json.dumps(arguments)), _step("s1"))
    assert [step.key for step in plan] == ["s1", "s2"], "each step stands behind those it waits for"
    assert list(plan[1].depends_on) == ["s1"]


def test_a_reference_to_a_dependency_of_a_dependency_adds_nothing() -> None:
    arguments = {"expression": {"$ref": "s1#/expression"}}
    plan = _accepted(
        _step("s1"), _step("s2", "1", "s1"), _step("s3", "", "s2", arguments_json=json.dumps(arguments))
    )
    assert list(plan[2].depends_on) == ["s2"]


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([], "no steps"),
        ([_step("")], "is not 1 to 64"),
        ([_step("S1")], "is not 1 to 64"),
        ([_step("s1"), _step("s1")], "used twice"),
        ([_step("s1", tool="rm")], "there is no tool 'rm'; there are: book, calculator"),
        ([_step("s1", kind=types.STEP_KIND_MODEL)], "kind is not supported"),
        ([_step("s1", kind=99)], "kind is not supported"),
        ([_step("s1", kind=types.STEP_KIND_HUMAN)], "a human step has no tool"),
        ([_step("s1", kind=types.STEP_KIND_HUMAN, tool="")], "needs instructions"),
        ([_step("s1", "1", "s9")], "depends on 's9'"),
        ([_step("s1", "1", "s1")], "depends on itself"),
        (
            [_step("s1", "1", "s3"), _step("s2", "1", "s1"), _step("s3", "1", "s2")],
            "circle: s1 -> s3 -> s2 -> s1",
        ),
        ([_step("s1", {"$ref": "s2#/text"}), _step("s2", {"$ref": "s1#/text"})], "circle"),
        ([_step("s1", {"$ref": "s1#/text"})], "refer to itself"),
        ([_step("s1", {"$ref": "s7#/text"})], "refer to 's7'"),
        ([_step("s1", {"$ref": "s7"})], "is no reference"),
        ([_step("s1", 5)], '/expression: 5 is not of type "string"'),
        ([_step("s1", arguments_json="{")], "not JSON"),
        ([_step("s1", arguments_json="[]")], "not an object"),
        ([_step("s1", arguments_json='{"expression":"1","x":2}')], "'x' was unexpected"),
        (
            [_step("s1"), _step("s2", arguments_json='{"variables":{"x":{"$ref":"s1#/result"}}}')],
            "required property",
        ),
        ([_step("s1", pool="gpu")], "the pool 'gpu' does not serve"),
        ([_step("s1", timeout=duration_pb2.Duration(seconds=-1))], "timeout"),
        ([_step("s1", timeout=duration_pb2.Duration())], "timeout"),
        ([_step("s1", instructions="x" * 9000)], "instructions are longer"),
        ([_step("s1", "x" * 300_000)], "larger than"),
    ],
)
def test_a_broken_plan_is_refused_with_the_place(steps: list[types.PlanStep], why: str) -> None:
    refused = _refused(*steps)
    assert why in refused.message
    assert refused.reason == "REASON_PLAN_INVALID"


def test_too_many_steps_have_a_reason_of_their_own() -> None:
    refused = _refused(*(_step(f"s{number}") for number in range(4)), most=3)
    assert refused.reason == "REASON_STEP_LIMIT_EXCEEDED"


def test_what_a_reference_will_come_to_is_not_guessed() -> None:
    unknown = json.dumps({"action": {"$ref": "s1#/text"}, "title": {"$ref": "s1#/text"}})
    _accepted(_step("s1"), _step("s2", tool="todo_store", arguments_json=unknown))


_names = st.sampled_from(["s1", "s2", "s3", "S", "", "a#b", "x" * 70])
_arguments = st.sampled_from(
    ["", "{}", "[]", "nul", '{"expression":"1"}', '{"expression":{"$ref":"s1#/text"}}', '{"$ref":"s1#"}',
     '{"x":{"$ref":"s2#/~"}}', '{"action":"list"}', "[" * 2000, '{"a":' * 300 + "1" + "}" * 300]
)  # fmt: skip
_steps = st.builds(
    types.PlanStep,
    key=_names,
    kind=st.integers(0, 9),
    tool=st.sampled_from(["", "calculator", "todo_store", "book", "nope"]),
    arguments_json=_arguments,
    depends_on=st.lists(_names, max_size=3),
    instructions=st.text(max_size=5),
    timeout=st.none() | st.builds(duration_pb2.Duration, seconds=st.integers(-5, 100_000)),
    pool=st.sampled_from(["", "local", "gpu"]),
)


@given(st.lists(_steps, max_size=6))
def test_validation_never_raises_and_what_passes_can_be_run(steps: list[types.PlanStep]) -> None:
    plan = validate_plan(steps, _TOOLS, 5)
    if isinstance(plan, Refused):
        assert plan.message and plan.reason.startswith("REASON_")
        return
    done: set[str] = set()
    for step in plan:
        assert done.issuperset(step.depends_on)
        done.add(step.key)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["plan", "steps", "key", "kind", "tool", "arguments", "depends_on", "timeout_ms", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(_values)
def test_a_plan_that_a_client_brings_is_read_or_refused(value: Any) -> None:
    part = types.Part(data_json=json.dumps(value))
    planned = given_planner.plan((part,), _TOOLS)
    if not isinstance(planned, Refused):
        validate_plan(planned.steps, _TOOLS, 5)
