"""One attempt of a model step: whatever the provider does, the answer is a result that can be kept."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types
from kfm_server.context import ExecutionContext
from kfm_server.models import ModelSpec, Personality
from kfm_server.ports.history import Exchange
from kfm_server.ports.models import ModelDelta, ModelReply, ModelRequest, ProviderError, TokenUsage
from kfm_server.ports.steps import Attempt, AttemptResult
from kfm_server.recipe import Recipe
from kfm_server.runtime.attempts import no_progress
from kfm_server.steps.accounting import MOST_TOKENS
from kfm_server.steps.model_step import model_step
from kfm_server.steps.step_processor import StepProcessor
from prometheus_client import REGISTRY

from tests.unit.steps.test_step_processor import FixedClock

pytestmark = pytest.mark.requirement("R3")

SPEC = ModelSpec("m", "scripted", "m", input_nanos=10**9, output_nanos=10**9)


class Provider:
    """Answers with one reply, or fails as the test says; with None it never does."""

    def __init__(self, reply: ModelReply | BaseException | None) -> None:
        self.reply = reply
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        self.requests.append(request)
        if isinstance(self.reply, BaseException):
            raise self.reply
        if self.reply is None:
            await asyncio.Event().wait()
        else:
            yield self.reply


class NoHistory:
    """A session's first turn."""

    async def before(self, tenant_id: str, session_id: str, turn_id: str, limit: int) -> Sequence[Exchange]:
        return ()


async def run(
    provider: Provider,
    schema: str = "",
    spec: ModelSpec = SPEC,
    max_cost_nanos: int = 0,
    seconds: float = 1.0,
) -> AttemptResult:
    """One attempt."""
    handler = model_step(lambda name: (provider, spec), {}, NoHistory())  # pyright: ignore[reportArgumentType]
    words = (types.Part(text="hello"),)
    recipe = Recipe("answer", "m", Personality(), words, 0, schema, max_cost_nanos=max_cost_nanos)
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
        FixedClock().now_us(),
        FixedClock().now_us() + int(seconds * 1_000_000),
        recipe=recipe,
    )
    return await StepProcessor({}, {}, FixedClock(), models=handler).run(attempt, no_progress)


@pytest.mark.parametrize("told", [-5, 10**30])
async def test_usage_that_cannot_be_is_neither_refunded_nor_too_large_to_add_up(told: int) -> None:
    result = await run(Provider(ModelReply("good day", "stop", TokenUsage(told, told))))
    assert result.status == events.STEP_STATUS_SUCCEEDED
    assert result.call is not None and result.call.usage is not None
    used = result.call.usage
    assert used.input_tokens == used.output_tokens == min(max(told, 0), MOST_TOKENS)
    assert 0 <= used.cost_nanos * 1000 < 2**63  # a turn makes a thousand calls at most


async def test_a_provider_that_cancels_itself_is_a_failure_and_not_silence() -> None:
    result = await run(Provider(asyncio.CancelledError()))
    assert result.status == events.STEP_STATUS_FAILED
    assert result.failure is not None and result.failure.reason == "REASON_STEP_FAILED"


async def test_a_schema_that_is_only_true_asks_nothing_of_the_provider() -> None:
    provider = Provider(ModelReply("[1]", "stop", TokenUsage(1, 1)))
    assert (await run(provider, "true")).status == events.STEP_STATUS_SUCCEEDED
    assert provider.requests[0].output_schema is None


@pytest.mark.parametrize(
    ("prices", "lacks"),
    [
        ({}, "lacks input_usd_per_million and output_usd_per_million"),
        ({"input_nanos": 0}, "lacks output_usd_per_million"),
    ],
)
async def test_a_bound_on_cost_is_not_handed_to_a_model_without_prices(
    prices: dict[str, int], lacks: str
) -> None:
    provider = Provider(ModelReply("good day", "stop", TokenUsage(1, 1)))
    spec = ModelSpec("small", "scripted", "m", **prices)  # pyright: ignore[reportArgumentType]
    result = await run(provider, spec=spec, max_cost_nanos=100)
    assert result.failure is not None and result.failure.reason == "REASON_BUDGET_EXCEEDED"
    assert "model small has no price" in result.failure.message and lacks in result.failure.message
    assert not provider.requests
    free = await run(provider, spec=spec)
    assert free.call is not None and free.call.usage is not None and free.call.usage.cost_nanos == 0


async def test_a_price_of_nothing_is_a_price() -> None:
    provider = Provider(ModelReply("good day", "stop", TokenUsage(1, 1)))
    spec = ModelSpec("small", "scripted", "m", input_nanos=0, output_nanos=0)
    assert (await run(provider, spec=spec, max_cost_nanos=1)).status == events.STEP_STATUS_SUCCEEDED


async def test_a_call_that_would_cost_too_much_is_refused_in_dollars() -> None:
    result = await run(Provider(ModelReply("hi", "stop", TokenUsage(1, 1))), max_cost_nanos=100)
    assert result.failure is not None
    assert "max_cost: USD 0.0000001 (max_cost_nanos: 100) is left" in result.failure.message


async def test_a_model_that_does_not_answer_in_time_is_named() -> None:
    result = await run(Provider(None), seconds=0.05)
    assert result.failure is not None and result.failure.reason == "REASON_STEP_TIMEOUT"
    assert result.failure.message == "The model m did not answer within 0.05 s."
    assert result.failure.metadata == {"model": "m"}


@pytest.mark.requirement("V1")
async def test_a_call_counts_by_its_configured_name_also_one_that_failed() -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"kfm_model_{name}", {"model": "m", **labels}) or 0.0

    def all_counted() -> tuple[float, ...]:
        return (
            counted("calls_total", outcome="succeeded"),
            counted("calls_total", outcome="failed"),
            counted("tokens_total", direction="input"),
            counted("call_seconds_count"),
        )

    before = all_counted()
    spec = ModelSpec("m", "scripted", "theirs")
    await run(Provider(ModelReply("good day", "stop", TokenUsage(5, 1))), spec=spec)
    away = ProviderError("REASON_PROVIDER_UNAVAILABLE", "away", usage=TokenUsage(2, 0))
    await run(Provider(away), spec=spec)
    assert tuple(now - then for now, then in zip(all_counted(), before, strict=True)) == (1, 1, 7, 2)
