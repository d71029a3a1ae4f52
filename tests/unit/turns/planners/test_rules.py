"""The rules understand the whole of a message, or say what they can do."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm.type.v1 import type_pb2 as types
from kfm_server.tools.registry import build_registry
from kfm_server.turns.plan_validation import validate_plan
from kfm_server.turns.planners import Planned, Refused, plan
from kfm_server.turns.planners.arithmetic import read_arithmetic

from tests.unit.turns.planners.paraphrases import PARAPHRASES

pytestmark = pytest.mark.requirement("R3")

_TOOLS = build_registry().catalogue


def _plan(*texts: str) -> Planned | Refused:
    return plan(tuple(types.Part(text=text) for text in texts), _TOOLS)


@pytest.mark.parametrize(("text", "expected"), PARAPHRASES, ids=[text for text, _ in PARAPHRASES])
def test_a_paraphrase_is_planned_as_meant_or_refused_with_a_reason(
    text: str, expected: list[tuple[str, dict[str, Any]]] | None
) -> None:
    planned = _plan(text)
    if expected is None:
        assert isinstance(planned, Refused)
        assert planned.reason == "REASON_PLAN_NOT_POSSIBLE"
        assert "I can compute arithmetic" in planned.message
        return
    assert isinstance(planned, Planned), planned
    assert [(step.tool, json.loads(step.arguments_json)) for step in planned.steps] == expected
    assert not isinstance(validate_plan(planned.steps, _TOOLS, 20), Refused)


def test_clauses_run_one_after_the_other() -> None:
    planned = _plan("Add a todo to buy milk, then show me all my tasks")
    assert isinstance(planned, Planned)
    assert [(step.key, list(step.depends_on)) for step in planned.steps] == [("s1", []), ("s2", ["s1"])]
    assert planned.planner == "rules"
    assert 0 < planned.complexity <= 100


def test_a_title_in_quotes_may_hold_anything() -> None:
    planned = _plan('Add a todo "don\'t stop; then what? and list my tasks", then show my tasks')
    assert isinstance(planned, Planned)
    assert json.loads(planned.steps[0].arguments_json)["title"] == "don't stop; then what? and list my tasks"


def test_a_missing_tool_is_named() -> None:
    refused = plan((types.Part(text="what is 1 + 1?"),), {})
    assert isinstance(refused, Refused)
    assert "'calculator'" in refused.message


def test_several_text_parts_are_one_message() -> None:
    planned = _plan("add a todo to buy milk", "show me my tasks")
    assert isinstance(planned, Planned)
    assert len(planned.steps) == 2
    assert isinstance(_plan("add a todo to buy milk", "or rather not"), Refused)


_PIECES = st.sampled_from(
    [
        "add a todo to buy milk",
        "show me my tasks",
        "what is",
        "1 + 1",
        "and",
        "then",
        ",",
        ".",
        "?",
        "don't",
        "not",
        "my",
        "list",
        "mark",
        "it",
        "as done",
        "remind me to",
        "delete",
        '"x"',
        "'",
        "the sum of",
        "17",
        "5",
        "times",
        "divided by",
        "percent of",
        "(",
        ")",
        "tomorrow",
        "Anna's",
        "rename",
        "to",
        ";",
        "\n",
        "all",
        "-",
        "=",
    ]
)


@given(st.lists(_PIECES, max_size=14).map(" ".join))
def test_whatever_the_words_the_plan_is_valid_or_there_is_a_reason(text: str) -> None:
    planned = _plan(text)
    if isinstance(planned, Planned):
        assert not isinstance(validate_plan(planned.steps, _TOOLS, 40), Refused), planned
    else:
        assert planned.message


@given(st.text(max_size=80))
def test_any_text_is_planned_or_refused(text: str) -> None:
    _plan(text)


@given(
    st.recursive(
        st.integers(0, 99).map(str), lambda e: st.builds("({} {} {})".format, e, st.sampled_from("+-*/"), e)
    )
)
def test_arithmetic_in_signs_is_read_as_it_stands(expression: str) -> None:
    read = read_arithmetic(f"What is {expression}?")
    if len(expression) < 3:
        assert read is None
    elif expression.count("(") < 30:
        assert read is not None
        assert read.replace(" ", "") == expression.replace(" ", "")


@pytest.mark.parametrize(
    "piece", [", ", "and ", "the ", "!", "a ", "(", "1 + ", "to ", "in 1 ", "list, ", "'"]
)
@pytest.mark.parametrize("start", ["", "add ", "what is ", "remind me to "])
def test_a_hostile_message_is_answered_quickly(start: str, piece: str) -> None:
    began = time.process_time()
    _plan((start + piece * 2000)[:2000])
    assert time.process_time() - began < 0.5
