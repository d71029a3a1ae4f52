"""FT20: a provider that fails over real HTTP. Only the engine retries; each failure ends as the error model says."""

from typing import Any

import pytest
from xenocomm import Client
from xenocomm._gen.types import Outcome, PlanChange, StepState, StepStatus, Turn

from tests.e2e.test_model_turns import models_of, plans_of
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.requirement("R3", "R4", "P1", "P2")

each = pytest.mark.parametrize("adapter", ["direct", "lite", "claude", "llama"])
"""OpenAI and what is compatible with it, directly and by LiteLLM; Anthropic; Ollama."""
ANSWER = {"text": "Here you are.", "chunk_chars": 4}


def failing(kind: str, **more: Any) -> dict[str, Any]:
    """A rule that fails so, and then answers."""
    return {"failure": {"kind": kind, **more}, "reply": ANSWER}


async def turn_of(live: Client, personality: str, message: str = "Hello") -> Turn:
    """The turn at its end, however it ended."""
    return await live.turns.run(message, personality=personality, check=False)


def reasons(turn: Turn) -> list[str]:
    """Of the attempts of its first model step; empty for one that succeeded."""
    return [a.error.reason if a.error is not None else "" for a in models_of(turn)[0].attempts]


def costs(turn: Turn) -> list[int]:
    """Of those attempts, each the sum of its tokens by the prices of the model."""
    found: list[int] = []
    for attempt in models_of(turn)[0].attempts:
        used = attempt.usage
        found.append(used.cost_nanos if used else 0)
        assert used is None or used.cost_nanos == 1000 * used.input_tokens + 2000 * used.output_tokens
    return found


@each
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (failing("status", status=429, retry_after="1", first=1), "REASON_PROVIDER_RATE_LIMITED"),
        (failing("status", status=500, first=1), "REASON_PROVIDER_UNAVAILABLE"),
        (failing("cut", after_chunks=2, first=1), "REASON_PROVIDER_UNAVAILABLE"),
        (failing("bad_json", first=1), "REASON_MODEL_REPLY_INVALID"),
    ],
    ids=["429", "500", "cut", "bad-json"],
)
async def test_what_may_pass_is_tried_again_by_the_engine_alone(
    adapter: str, failure: dict[str, Any], reason: str, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(failure)
    turn = await turn_of(model_live, f"{adapter}-react")
    assert turn.outcome == Outcome.SUCCEEDED, turn.error
    assert turn.output[0].text == ANSWER["text"]
    assert reasons(turn) == [reason, ""]
    assert model_server.count() == 2
    lost, paid = costs(turn)
    assert turn.usage is not None and turn.usage.model_calls == 2
    assert paid > 0 and turn.usage.cost_nanos == lost + paid
    assert (lost > 0) == (failure["failure"]["kind"] != "status"), "what had begun to answer is estimated"
    assert len({request["idempotency_key"] for request in model_server.requests()}) == 1


@each
async def test_a_provider_that_stalls_is_left_at_the_timeout_and_asked_again(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play({"reply": ANSWER})
    await turn_of(model_live, f"{adapter}-react")  # LiteLLM takes seconds to import
    model_server.play(failing("stall", first=1))
    turn = await turn_of(model_live, f"hasty-{adapter}-react")
    assert reasons(turn) == ["REASON_STEP_TIMEOUT", ""]
    assert model_server.count() == 2
    lost, paid = costs(turn)
    assert lost > 0 and paid > 0, "nobody knows what a call that is left has cost: it is estimated"


@each
async def test_a_provider_that_asks_for_time_is_given_it(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(failing("status", status=429, retry_after="2", first=1))
    turn = await turn_of(model_live, f"{adapter}-react")
    first, second = models_of(turn)[0].attempts
    assert (second.dispatched_at - first.ended_at).total_seconds() >= 2


@each
async def test_a_provider_that_stays_away_is_asked_as_often_as_the_limits_say_and_no_more(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(failing("status", status=500))
    turn = await turn_of(model_live, f"{adapter}-react")
    assert turn.outcome == Outcome.FAILED
    assert turn.error is not None and turn.error.reason == "REASON_PROVIDER_UNAVAILABLE"
    assert model_server.count() == 3


@each
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (failing("context_overflow"), "REASON_CONTEXT_OVERFLOW"),
        (failing("status", status=402), "REASON_PROVIDER_REJECTED"),
        (failing("content_filter"), "REASON_CONTENT_REFUSED"),
        (failing("status", status=401), "REASON_PROVIDER_REJECTED"),
        (failing("status", status=400), "REASON_PROVIDER_REJECTED"),
    ],
    ids=["overflow", "402", "filter", "401", "400"],
)
async def test_what_will_never_pass_is_not_tried_again(
    adapter: str, failure: dict[str, Any], reason: str, model_live: Client, model_server: ModelServer
) -> None:
    if adapter == "llama" and failure["failure"]["kind"] == "content_filter":
        pytest.skip("Ollama has no filter")
    model_server.play(failure)
    turn = await turn_of(model_live, f"{adapter}-react")
    assert reasons(turn) == [reason] and costs(turn) == [0]
    assert turn.outcome == Outcome.FAILED
    assert turn.error is not None and turn.error.reason == reason
    assert "key-of-the-stub" not in repr(turn)
    assert model_server.count() == 1


@each
async def test_hybrid_falls_back_to_rules_and_its_history_says_why(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(failing("status", status=400))
    turn = await turn_of(model_live, f"{adapter}-hybrid", "what is (17 + 5) * 3 / 2 ?")
    assert turn.outcome == Outcome.SUCCEEDED
    assert "33" in turn.output[0].text
    assert turn.planner == "rules"
    made, repaired = await plans_of(model_live, turn.turn_id)
    assert (made.change, made.planner, made.model) == (PlanChange.MADE, "hybrid", adapter)
    assert (repaired.change, repaired.planner) == (PlanChange.REPAIRED, "rules")
    assert repaired.error is not None and repaired.error.reason == "REASON_PROVIDER_REJECTED"


@each
async def test_calls_with_the_same_id_are_both_made_and_both_answered(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    calls = [
        {"name": "calculator", "arguments": {"expression": f"{n} + {n}"}, "id": "call_same"} for n in (1, 2)
    ]
    model_server.play({"step": 0, "reply": {"tools": calls}}, {"reply": {"text": "{{results}}"}})
    turn = await turn_of(model_live, f"{adapter}-react")
    assert "1 + 1 = 2" in turn.output[0].text and "2 + 2 = 4" in turn.output[0].text
    sent = model_server.requests()[-1]["body"]["messages"]
    if adapter == "claude":
        ids = [part["tool_use_id"] for part in sent[-1]["content"] if part["type"] == "tool_result"]
    else:
        ids = [message["tool_call_id"] for message in sent if message["role"] == "tool"]
    assert len(set(ids)) == 2


@each
async def test_arguments_that_do_not_fit_are_refused_and_the_tool_never_runs(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    calls = [{"name": "calculator", "raw": "{not json"}, {"name": "ledger_once", "arguments": {"hold": 7}}]
    model_server.play({"step": 0, "reply": {"tools": calls}}, {"reply": ANSWER})
    turn = await turn_of(model_live, f"{adapter}-react")
    assert [step.state for step in turn.steps[1:3]] == [StepState.SKIPPED, StepState.SKIPPED]
    assert turn.outcome == Outcome.SUCCEEDED


@each
async def test_an_answer_of_a_hundred_thousand_tokens_is_kept_whole_and_told_cut(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play({"reply": {"text": "word ", "repeat": 100_000, "chunks": 200}})
    turn = await turn_of(model_live, f"{adapter}-react")
    assert turn.outcome == Outcome.SUCCEEDED, turn.error
    assert len(turn.output[0].text) <= 65_536 and turn.output[0].text.endswith("…")
    assert models_of(turn)[0].output_json.count("word") == 100_000
    [attempt] = models_of(turn)[0].attempts
    assert attempt.status == StepStatus.SUCCEEDED and attempt.usage.output_tokens >= 100_000
