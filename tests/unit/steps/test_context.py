"""A call is within what its model takes, or it is not made."""

import asyncio
import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types
from kfm_server.context import ExecutionContext
from kfm_server.models import ModelSpec, Personality
from kfm_server.ports.models import ModelReply, ProviderError, TokenUsage
from kfm_server.ports.steps import Attempt, AttemptResult
from kfm_server.recipe import CallOutcome, Recipe, Round
from kfm_server.runtime.attempts import no_progress
from kfm_server.steps.context import LEAST_OUTCOME, render
from kfm_server.steps.model_step import model_step
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.steps.tokens import tokens_of
from kfm_server.turns.replies import AskedCall, Reply

from tests.unit.steps.test_model_step import NoHistory, Provider
from tests.unit.steps.test_step_processor import FixedClock

pytestmark = pytest.mark.requirement("R3")

SMALL = ModelSpec(
    "small", "scripted", "s", context_tokens=8_000, max_output_tokens=1_000, fallbacks=("large",)
)
LARGE = ModelSpec("large", "scripted", "l", context_tokens=200_000, max_output_tokens=1_000)
ROOM = 7_000


def recipe_of(message: str, outputs: list[list[str]], *, planned: bool = False) -> Recipe:
    """A turn in which each round called a tool for each output."""
    rounds: list[Round] = []
    for n, texts in enumerate(outputs):
        asked = tuple(AskedCall("look", "{}") for _ in texts)
        reply = "" if planned else json.dumps(Reply("", asked, False).value())
        calls = tuple(CallOutcome(f"t{n}.{i}", "look", "{}", text, "") for i, text in enumerate(texts))
        rounds.append(Round(reply, calls))
    return Recipe("answer", "small", Personality(), (types.Part(text=message),), 0, rounds=tuple(rounds))


def ask(recipe: Recipe, models: Mapping[str, tuple[Provider, ModelSpec]]) -> AttemptResult:
    """One attempt."""
    now = FixedClock().now_us()
    attempt = Attempt(
        ExecutionContext(),
        "turn_1",
        "m1",
        1,
        types.STEP_KIND_MODEL,
        "",
        "{}",
        types.EFFECT_CONTRACT_IDEMPOTENT,
        "turn_1:m1",
        1,
        now,
        now + 60_000_000,
        recipe=recipe,
    )
    handler = model_step(models.__getitem__, {}, NoHistory())  # pyright: ignore[reportArgumentType]
    return asyncio.run(StepProcessor({}, {}, FixedClock(), models=handler).run(attempt, no_progress))


def answering() -> Provider:
    return Provider(ModelReply("good day", "stop", TokenUsage(1, 1)))


TEXTS = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=8), st.integers(0, 12_000))


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.lists(st.lists(TEXTS, min_size=1, max_size=4), max_size=4), st.booleans())
def test_whatever_a_turn_came_to_a_call_fits_its_model_or_is_not_made(
    message: str, outputs: list[list[str]], planned: bool
) -> None:
    provider = answering()
    result = ask(recipe_of(message, outputs, planned=planned), {"small": (provider, SMALL)})
    for request in provider.requests:
        assert tokens_of(request.messages, request.tools) <= ROOM
    if not provider.requests:
        assert result.failure is not None and result.failure.reason == "REASON_CONTEXT_OVERFLOW"


@pytest.mark.parametrize("planned", [False, True])
def test_outcomes_are_cut_to_the_room_that_is_left_and_the_oldest_first(planned: bool) -> None:
    outputs = [[f"{n} begins " + "x" * 9_000 for n in range(4)]]
    request = render(recipe_of("Look.", outputs, planned=planned), SMALL, {})
    text = "\n".join(message.text for message in request.messages)
    assert ROOM - 100 < tokens_of(request.messages, request.tools) <= ROOM
    assert all(f"{n} begins x" in text for n in range(4)), "of each a beginning"
    assert text.count(" of 9009 characters)") == 2 and outputs[0][3] in text and outputs[0][2] in text
    assert f"… (cut: {LEAST_OUTCOME} of 9009 characters)" in text


def test_outcomes_that_are_too_long_for_any_model_tell_their_whole_length_when_they_are_cut_further() -> None:
    request = render(recipe_of("Look.", [["x" * 100_000] for _ in range(4)]), SMALL, {})
    assert ROOM - 100 < tokens_of(request.messages, request.tools) <= ROOM
    results = [message.text for message in request.messages if message.role == "tool"]
    assert len(results) == 4 and all(text.endswith(" of 100000 characters)") for text in results)


def test_what_is_too_long_for_a_model_is_asked_of_the_next_that_takes_it() -> None:
    small, large = answering(), answering()
    models = {"small": (small, SMALL), "large": (large, LARGE)}
    assert ask(recipe_of("word " * 12_000, []), models).status == events.STEP_STATUS_SUCCEEDED
    assert (len(small.requests), len(large.requests)) == (0, 1)
    ask(recipe_of("word", []), models)
    assert (len(small.requests), len(large.requests)) == (1, 1)


def test_what_is_too_long_for_all_models_fails_before_anything_is_paid() -> None:
    small = answering()
    result = ask(recipe_of("word " * 12_000, []), {"small": (small, SMALL)})
    assert result.failure is not None and result.call is None and not small.requests
    assert (result.failure.reason, result.failure.retryable) == ("REASON_CONTEXT_OVERFLOW", False)
    assert "the model small takes 7000: context_tokens 8000" in result.failure.message


def test_while_the_only_model_that_takes_it_is_away_the_step_may_be_tried_again() -> None:
    away = ProviderError("REASON_PROVIDER_UNAVAILABLE", "away", True, 10, None, "", {"breaker": "open"})
    models = {"small": (answering(), SMALL), "large": (Provider(away), LARGE)}
    result = ask(recipe_of("word " * 12_000, []), models)
    assert result.failure is not None and result.failure.retryable
    assert result.failure.reason == "REASON_PROVIDER_UNAVAILABLE"
