"""Which model an attempt asks, and what an attempt that failed says of the next one."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types
from kfm_server.context import ExecutionContext
from kfm_server.models import ModelSpec, Personality
from kfm_server.ports.models import ModelDelta, ModelReply, ModelRequest, ProviderError, TokenUsage
from kfm_server.ports.steps import Attempt, AttemptResult
from kfm_server.providers import errors
from kfm_server.recipe import FailedCall, Recipe
from kfm_server.runtime.attempts import no_progress
from kfm_server.steps.fallback import PATIENCE_MS, next_model
from kfm_server.steps.model_step import model_step
from kfm_server.steps.step_processor import StepProcessor

from tests.unit.steps.test_model_step import NoHistory
from tests.unit.steps.test_step_processor import FixedClock

pytestmark = pytest.mark.requirement("P2")

FIRST = ModelSpec("first", "x", "f", context_tokens=8_000, fallbacks=("second", "third"))
SECOND = ModelSpec(
    "second", "x", "s", context_tokens=4_000, max_output_tokens=1_000, input_nanos=10, output_nanos=20
)
THIRD = ModelSpec("third", "x", "t", context_tokens=16_000)
CHAIN = (FIRST, SECOND, THIRD)
AWAY, LIMITED = "REASON_PROVIDER_UNAVAILABLE", "REASON_PROVIDER_RATE_LIMITED"


@pytest.mark.parametrize(
    ("failed", "next_one"),
    [
        ([], "first"),
        ([("first", AWAY)], "second"),
        ([("first", "REASON_STEP_TIMEOUT")], "second"),
        ([("first", "REASON_MODEL_REPLY_INVALID")], "second"),
        ([("first", AWAY), ("second", AWAY)], "third"),
        ([("first", AWAY), ("second", AWAY), ("third", AWAY)], "first"),
        ([("first", LIMITED, "429", PATIENCE_MS)], "first"),
        ([("first", LIMITED, "429", PATIENCE_MS)] * 2, "second"),
        ([("first", LIMITED, "429", PATIENCE_MS + 1)], "second"),
        ([("first", "REASON_CONTEXT_OVERFLOW", "400")], "third"),
        ([("third", "REASON_CONTEXT_OVERFLOW", "400")], None),
        ([("first", "REASON_PROVIDER_REJECTED", "401"), ("second", AWAY), ("third", AWAY)], "second"),
        ([("first", "REASON_PROVIDER_REJECTED", "400")], "first"),
    ],
)
def test_the_chain_goes_on_with_what_has_failed_least(
    failed: list[tuple[str, str]], next_one: str | None
) -> None:
    found = next_model(CHAIN, [FailedCall(*call) for call in failed])
    assert (found.name if found else None) == next_one


class Provider:
    """Answers, fails or never says a word after the first."""

    def __init__(self, answer: str | ProviderError | None = "hello") -> None:
        self.answer = answer
        self.asked = 0

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        self.asked += 1
        if isinstance(self.answer, ProviderError):
            raise self.answer
        yield ModelDelta("text", "so far")
        if self.answer is None:
            await asyncio.Event().wait()
        yield ModelReply(self.answer or "", "stop", TokenUsage(3, 4), request_id="r1")


def open_breaker(name: str, seconds: float = 9.0) -> Provider:
    return Provider(errors.not_asked(name, 5, seconds))


async def run(
    first: Provider,
    second: Provider,
    third: Provider | None = None,
    failed: tuple[FailedCall, ...] = (),
    seconds: float = 1.0,
) -> AttemptResult:
    known = {"first": (first, FIRST), "second": (second, SECOND)}
    if third is not None:
        known["third"] = (third, THIRD)
    handler = model_step(known.__getitem__, {}, NoHistory())  # pyright: ignore[reportArgumentType]
    recipe = Recipe("answer", "first", Personality(), (types.Part(text="hello"),), 0, failed=failed)
    now = FixedClock().now_us()
    effect = types.EFFECT_CONTRACT_IDEMPOTENT
    attempt = Attempt(
        ExecutionContext(),
        "turn_1",
        "m1",
        1,
        types.STEP_KIND_MODEL,
        "",
        "{}",
        effect,
        "turn_1:m1",
        1,
        now,
        now + int(seconds * 1_000_000),
        recipe=recipe,
    )
    return await StepProcessor({}, {}, FixedClock(), models=handler).run(attempt, no_progress)


async def test_a_failure_is_the_attempts_and_names_the_model_of_the_next() -> None:
    second = Provider()
    result = await run(Provider(errors.failure(errors.UNAVAILABLE, "away", retry_after_ms=9000)), second)
    assert result.failure is not None and result.failure.retryable and second.asked == 0
    assert result.failure.metadata == {"model": "first", "fallback": "second", "asked_to_wait_ms": "9000"}


async def test_the_next_attempt_asks_that_model_and_costs_what_it_costs() -> None:
    first = Provider()
    result = await run(first, Provider(), failed=(FailedCall("first", AWAY),))
    assert first.asked == 0 and result.status == events.STEP_STATUS_SUCCEEDED
    assert result.call is not None and result.call.usage is not None
    assert (result.call.model, result.call.usage.cost_nanos) == ("second", 3 * 10 + 4 * 20)


async def test_a_refusal_for_the_keys_sake_is_worth_another_attempt_only_while_models_are_left() -> None:
    refusal = errors.failure(errors.REJECTED, "no key", http_status="401")
    result = await run(Provider(refusal), Provider())
    assert result.failure is not None and result.failure.retryable
    last = await run(
        Provider(refusal),
        Provider(refusal),
        failed=(FailedCall("first", "REASON_PROVIDER_REJECTED", "401"),),
    )
    assert last.failure is not None and not last.failure.retryable


async def test_what_was_wrong_with_the_call_itself_goes_to_no_other_model() -> None:
    result = await run(Provider(errors.failure(errors.REJECTED, "no", http_status="400")), Provider())
    assert result.failure is not None and not result.failure.retryable
    assert "fallback" not in result.failure.metadata


async def test_an_open_breaker_has_cost_nothing_so_the_same_attempt_asks_the_next_model() -> None:
    second = Provider()
    result = await run(open_breaker("first"), second)
    assert (result.status, second.asked) == (events.STEP_STATUS_SUCCEEDED, 1)
    assert result.call is not None and result.call.model == "second"


async def test_with_every_breaker_open_it_is_no_call_and_waits_for_the_first() -> None:
    result = await run(open_breaker("first", 9), open_breaker("second", 3), open_breaker("third", 5))
    assert result.failure is not None and result.failure.reason == AWAY and result.failure.retryable
    assert result.failure.metadata == {"model": "second", "breaker": "open", "retry_after_ms": "3000"}
    assert result.call is None


@pytest.mark.parametrize("failed", [(), (FailedCall("first", AWAY),)], ids=["first", "second"])
async def test_a_call_that_runs_out_of_time_is_estimated_and_its_model_named(
    failed: tuple[FailedCall, ...],
) -> None:
    result = await run(Provider(None), Provider(None), failed=failed, seconds=0.05)
    assert result.failure is not None and result.failure.reason == "REASON_STEP_TIMEOUT"
    assert result.call is not None and result.call.usage is not None
    asked = "second" if failed else "first"
    assert result.failure.metadata == {"model": asked} and result.call.model == asked
    used = result.call.usage
    assert used.input_tokens > 5 and used.output_tokens == 2 and used.model_calls == 1
    assert (used.cost_nanos > 0) == bool(failed)
