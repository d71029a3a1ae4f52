"""Answers fit into what hosts take, whatever is in a turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm_mcp import views
from kfm_mcp.arguments import compact
from kfm_mcp.sizes import cut, fit, tokens

pytestmark = pytest.mark.requirement("E4")

JSON = st.recursive(
    st.text(max_size=300) | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=20), inner, max_size=8),
    max_leaves=40,
)


@given(st.text(), st.integers(1, 50))
def test_a_cut_text_is_a_beginning_that_fits(text: str, most: int) -> None:
    shown = cut(text, most)
    assert text.startswith(shown)
    assert tokens(shown) <= most + 1
    assert shown or not text or most < 1


@given(st.dictionaries(st.text(max_size=20), JSON, max_size=10), st.integers(200, 2000))
def test_what_does_not_fit_is_cut_and_said_to_be(value: dict[str, object], most: int) -> None:
    shorter, was_cut = fit(value, most)
    assert tokens(compact(shorter)) <= most
    assert was_cut == (shorter != value) or shorter == value


@pytest.mark.parametrize("character", ["x", "中", "🦊", '"', "\\"])
@pytest.mark.parametrize("full", [False, True])
def test_a_monstrous_turn_stays_below_twenty_five_thousand_tokens(character: str, full: bool) -> None:
    monster = character * 20_000
    step = {
        "definition": {"key": "s", "instructions": monster, "arguments_json": monster},
        "state": "STEP_STATE_WAITING",
        "output_json": monster,
    }
    raw = {
        "turn_id": "turn_1",
        "state": "TURN_STATE_WAITING",
        "spec": {"input": [{"text": monster}], "labels": {f"l{n}": monster for n in range(32)}},
        "steps": [step] * 12,
        "output": [{"text": monster}, {"data_json": monster}],
        "error": {"reason": "R", "message": monster},
        "effects_done": [monster] * 20,
    }
    seen = views.turn(raw, full=full, answerable=True)
    assert tokens(compact(seen.data)) + tokens(seen.text) < 25_000
    assert "truncated" in seen.data
    page = views.turns({"turns": [raw] * 10, "next_page_token": "p"}, full=full)
    assert tokens(compact(page.data)) + tokens(page.text) < 25_000
    event = {"type": "T", "sequence": "1", "payload": {"text": monster, "parts": [monster] * 50}}
    told = views.events({"events": [event] * 100}, "turn_1", full=full)
    assert tokens(compact(told.data)) + tokens(told.text) < 25_000
    assert told.data["more"]
