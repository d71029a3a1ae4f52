"""One attempt of a model step: whatever the provider does, the answer is a result that can be kept."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types
from kfm_server.context import ExecutionContext
from kfm_server.models import ModelSpec, Personality
from kfm_server.ports.history import Exchange
from kfm_server.ports.models import ModelDelta, ModelReply, ModelRequest, TokenUsage
from kfm_server.ports.steps import Attempt, AttemptResult
from kfm_server.recipe import Recipe
from kfm_server.runtime.attempts import no_progress
from kfm_server.steps.model_step import MOST_TOKENS, model_step
from kfm_server.steps.step_processor import StepProcessor

from tests.unit.steps.test_step_processor import FixedClock

pytestmark = pytest.mark.requirement("R3")

SPEC = ModelSpec("m", "scripted", "m", input_nanos=10**9, output_nanos=10**9)


class Provider:
    """Answers with one reply, or fails as the test says."""

    def __init__(self, reply: ModelReply | BaseException) -> None:
        self.reply = reply
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        self.requests.append(request)
        if isinstance(self.reply, BaseException):
            raise self.reply
        yield self.reply


class NoHistory:
    """A session's first turn."""

    async def before(self, tenant_id: str, session_id: str, turn_id: str, limit: int) -> Sequence[Exchange]:
        return ()


async def run(provider: Provider, schema: str = "") -> AttemptResult:
    """One attempt."""
    handler = model_step(lambda name: (provider, SPEC), {}, NoHistory())  # pyright: ignore[reportArgumentType]
    recipe = Recipe("answer", "m", Personality(), (types.Part(text="hello"),), 0, schema)
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
        FixedClock().now_us() + 1_000_000,
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
