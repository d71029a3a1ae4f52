"""Nobody is misunderstood: hundreds of messages, and a title with any doubtful word in any place of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm.type.v1 import type_pb2 as types
from kfm_server.tools.registry import build_registry
from kfm_server.turns.planners import Planned, Refused, plan

from tests.unit.turns.planners.mean_messages import PLANNED, REFUSED

pytestmark = pytest.mark.requirement("R3")

_TOOLS = build_registry().catalogue


def _plan(text: str) -> Planned | Refused:
    return plan((types.Part(text=text),), _TOOLS)


def _short(planned: Planned) -> list[str]:
    """Each step as `action | title | ...`, or its expression."""
    lines: list[str] = []
    for step in planned.steps:
        arguments = json.loads(step.arguments_json)
        named = ["it" if name == "id" else str(arguments[name]) for name in
                 ("action", "id", "title", "new_title", "filter", "done") if name in arguments]  # fmt: skip
        lines.append(arguments.get("expression") or " | ".join(named))
    return lines


@pytest.mark.parametrize("text", PLANNED)
def test_a_message_is_planned_as_it_was_meant(text: str) -> None:
    planned = _plan(text)
    assert isinstance(planned, Planned), planned
    assert _short(planned) == PLANNED[text]


@pytest.mark.parametrize("text", REFUSED)
def test_a_message_that_could_be_misunderstood_is_refused_with_what_would_do(text: str) -> None:
    refused = _plan(text)
    assert isinstance(refused, Refused), _short(refused)
    assert refused.reason == "REASON_PLAN_NOT_POSSIBLE"
    assert "I can compute arithmetic" in refused.message


_DOUBTFUL = (
    "and or but if unless instead not no never maybe it them that this one ones another todo task list tomorrow monday "
    "daily soon later before after while when until by at on in as than then done marked urgent priority result answer "
    "please thanks sorry wait actually just again twice show me all - / + & ( ) , : ; => 5pm 1st 17:00 provided "
    "assuming because so too also"
)


@given(
    st.sampled_from(_DOUBTFUL.split()), st.integers(2, 5), st.sampled_from(["", "eggs", "my tasks", "Anna"])
)
def test_a_title_takes_in_no_doubtful_word_wherever_it_stands(word: str, at: int, behind: str) -> None:
    words = ["buy", "milk", "for", "our", "guests"]
    words.insert(at, f"{word} {behind}".strip())
    made = _plan(f"Add a todo to {' '.join(words)}")
    if isinstance(made, Planned):
        titles = [json.loads(step.arguments_json).get("title") for step in made.steps]
        assert titles in (["buy milk for our guests"], ["buy milk for our guests", None]), made


@given(
    st.text(min_size=1, max_size=60).filter(lambda text: not set(text) & set('"\n“”') and text.isprintable())
)
def test_a_quoted_title_is_taken_as_it_is(title: str) -> None:
    made = _plan(f'Add a todo "{title}"')
    if isinstance(made, Planned):
        assert [json.loads(step.arguments_json)["title"] for step in made.steps] == [title.strip()]


def test_one_rule_for_dates_is_said_in_the_refusal() -> None:
    for when in (
        "tomorrow",
        "at 5pm",
        "by Friday",
        "due tomorrow",
        "daily",
        "every Monday",
        "before noon",
        "on the 1st",
    ):
        refused = _plan(f"Add a todo to buy milk {when}")
        assert isinstance(refused, Refused)
        assert "todos here have no dates" in refused.message, when
        quoted = _plan(f'Add a todo "buy milk {when}"')
        assert isinstance(quoted, Planned) and _short(quoted) == [f"add | buy milk {when}"]
