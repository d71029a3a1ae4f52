"""One attempt of a model step: render, hold the limits, call, stream, and say what it cost."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kfm.catalogue.errors import HistoryUnreadable
from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types

from kfm_server import failpoints, metrics
from kfm_server.canonical import clean_text, sanitised_json
from kfm_server.models import ModelSpec
from kfm_server.ports.history import SessionHistory
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.ports.memory import Preference, Preferences
from kfm_server.ports.models import (
    ModelDelta,
    ModelProvider,
    ModelReply,
    ModelRequest,
    ProviderError,
    TokenUsage,
    digest_of,
)
from kfm_server.ports.steps import AttemptResult, CallRecord, Failure, Progress
from kfm_server.recipe import FailedCall, Recipe
from kfm_server.steps.accounting import count_call, so_far, used_by
from kfm_server.steps.context import missing, render
from kfm_server.steps.fallback import is_to_blame, next_model
from kfm_server.steps.middleware import MAX_RESULT_BYTES, Handler, Invocation, failed
from kfm_server.steps.tokens import tokens_of
from kfm_server.steps.window import MAX_EARLIER
from kfm_server.tool_catalogue import ToolCatalogue
from kfm_server.turns.replies import AskedCall, Reply
from kfm_server.turns.usage import usd

ModelLookup = Callable[[str], tuple[ModelProvider, ModelSpec]]
"""A configured model by name. Raises LookupError."""

LEAST_OUTPUT = 16
"""A call is not made if the limits leave fewer tokens than this for its answer."""

_STATUSES = {value: name.removeprefix("STEP_STATUS_").lower() for name, value in events.StepStatus.items()}
_BEFORE = failpoints.declare("model.call.before")
_FIRST = failpoints.declare("model.delta.first")
_AFTER = failpoints.declare("model.call.after")


def model_step(
    models: ModelLookup,
    tools: ToolCatalogue,
    history: SessionHistory,
    preferences: Preferences | None = None,
) -> Handler:
    """The handler of model and plan steps. It never retries; a call that would pass a limit is not made.

    `preferences`: of the turn's principal, which prompts are told.
    """

    async def handle(invocation: Invocation) -> AttemptResult:
        attempt = invocation.attempt
        recipe = attempt.recipe
        assert recipe is not None
        try:
            chain = chain_of(models, recipe.model)
        except LookupError:
            return failed("REASON_MODEL_NOT_FOUND", f"The model {recipe.model!r} is not configured any more.")
        context = attempt.context
        try:
            earlier = await history.before(
                context.tenant_id, context.session_id, attempt.turn_id, MAX_EARLIER
            )
        except JournalUnavailable:
            return failed("REASON_UNAVAILABLE", "The session's history cannot be read now.", retryable=True)
        except HistoryUnreadable as unreadable:
            return failed(unreadable.reason, unreadable.message)
        prefers: Sequence[Preference] = ()
        if preferences is not None:
            prefers = await preferences.preferences(context.tenant_id, context.principal)
        specs = [spec for _, spec in chain.values()]
        refused: dict[str, ProviderError] = {}
        too_large = recipe.failed
        spec = next_model(specs, recipe.failed) or specs[0]
        while True:
            request = render(recipe, spec, tools, earlier, prefers)
            if over := missing(request, spec):
                too_large = (*too_large, FailedCall(spec.name, "REASON_CONTEXT_OVERFLOW"))
                other = next_model(specs, too_large, refused)
                if other is None:
                    return _all_open(refused) if refused else _overflow(spec, over)
                spec = other
                continue
            most, problem = _allowed(recipe, spec, request)
            if problem:
                return failed("REASON_BUDGET_EXCEEDED", problem)
            request = replace(request, max_output_tokens=most)
            record = CallRecord(model=spec.name, prompt_digest=digest_of(request))
            request = replace(
                request,
                key=attempt.key,
                traceparent=context.traceparent,
                tenant=context.tenant_id,
                expired=invocation.expired,
            )
            if spec.name != recipe.model:
                metrics.MODEL_FALLBACKS.labels(recipe.model, spec.name).inc()
            try:
                return await _attempt(invocation, chain[spec.name][0], spec, request, record, specs)
            except _NotAsked as open_breaker:
                refused[spec.name] = open_breaker.error
            other = next_model(specs, too_large, refused)
            if other is None:
                return _all_open(refused)
            spec = other

    return handle


class _NotAsked(Exception):
    """The breaker of the model's endpoint is open: nothing was asked, and another model may be, at once."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__(error.message)
        self.error = error


def chain_of(models: ModelLookup, name: str) -> dict[str, tuple[ModelProvider, ModelSpec]]:
    """The model and those that it falls back to, by name, in order. Raises LookupError for the first one alone."""
    first = models(name)
    chain = {first[1].name: first}
    for other in first[1].fallbacks:
        with contextlib.suppress(LookupError):
            chain[other] = models(other)
    return chain


async def _attempt(
    invocation: Invocation,
    provider: ModelProvider,
    spec: ModelSpec,
    request: ModelRequest,
    record: CallRecord,
    chain: Sequence[ModelSpec],
) -> AttemptResult:
    """One call. Raises _NotAsked, and nothing else but cancellation: what that has cost stands in the invocation."""
    assert invocation.attempt.recipe is not None
    failpoints.hit(_BEFORE)
    invocation.started = True
    began = time.perf_counter()
    said: list[str] = []
    try:
        reply = await _call(provider, request, invocation.progress, said)
    except asyncio.CancelledError:
        invocation.call = _told(record, so_far(request, said), "", "", spec)
        status = "failed" if invocation.expired() else "cancelled"
        count_call(spec.name, status, invocation.call.usage, time.perf_counter() - began)
        raise
    except ProviderError as error:
        if error.metadata.get("breaker") == "open":
            raise _NotAsked(error) from None
        result = _failed(error, spec, record, chain, invocation.attempt.recipe.failed)
    else:
        failpoints.hit(_AFTER)
        result = _answered(reply, spec, record)
        if reply.cached:
            return result
    usage = result.call.usage if result.call else None
    count_call(spec.name, _STATUSES[result.status], usage, time.perf_counter() - began)
    return result


def _all_open(refused: Mapping[str, ProviderError]) -> AttemptResult:
    """Nobody was asked: the first that may be tried again says when."""
    name, error = min(refused.items(), key=lambda item: item[1].retry_after_ms)
    told = {"model": name, "retry_after_ms": str(error.retry_after_ms), **error.metadata}
    failure = Failure(error.reason, error.message, retryable=True, metadata=told)
    return AttemptResult(events.STEP_STATUS_FAILED, failure=failure)


def _overflow(spec: ModelSpec, over: int) -> AttemptResult:
    """Nobody was asked: the call fits none that is left of the chain, and this one was the last."""
    room = spec.context_tokens - spec.max_output_tokens
    problem = (
        f"The call reads about {room + over} tokens, and the model {spec.name} takes {room}: "
        f"context_tokens {spec.context_tokens} less max_output_tokens {spec.max_output_tokens}."
    )
    return failed("REASON_CONTEXT_OVERFLOW", problem, model=spec.name)


def _allowed(recipe: Recipe, spec: ModelSpec, request: ModelRequest) -> tuple[int, str]:
    """How many tokens the answer may have so that the call stays within the turn's limits; or which it would pass."""
    reads = tokens_of(request.messages, request.tools)
    most = spec.max_output_tokens
    if recipe.max_tokens:
        most = min(most, recipe.max_tokens - reads)
        if most < LEAST_OUTPUT:
            return (
                0,
                f"A call that reads about {reads} tokens would pass max_tokens: {recipe.max_tokens} are left.",
            )
    if recipe.max_cost_nanos:
        if spec.input_nanos is None or spec.output_nanos is None:
            return 0, _priceless(spec)
        left = recipe.max_cost_nanos - reads * spec.input_nanos
        most = min(most, left // spec.output_nanos) if spec.output_nanos else most if left >= 0 else 0
        if most < LEAST_OUTPUT:
            rest = f"{usd(recipe.max_cost_nanos)} (max_cost_nanos: {recipe.max_cost_nanos})"
            return 0, f"A call that reads about {reads} tokens would pass max_cost: {rest} is left."
    return most, ""


def _priceless(spec: ModelSpec) -> str:
    prices = {"input_usd_per_million": spec.input_nanos, "output_usd_per_million": spec.output_nanos}
    lacks = " and ".join(name for name, price in prices.items() if price is None)
    return f"The model {spec.name} has no price, so that max_cost cannot be held: its configuration lacks {lacks}."


async def _call(
    provider: ModelProvider, request: ModelRequest, progress: Progress, said: list[str]
) -> ModelReply:
    """The reply; its pieces go to `progress`, and stand in `said` should it be left."""
    reply: ModelReply | None = None
    first = True
    async with contextlib.aclosing(provider.stream(request)) as pieces:
        async for piece in pieces:
            if isinstance(piece, ModelDelta):
                said.append(piece.text)
                progress(piece.text, piece.kind)
                if first:
                    failpoints.hit(_FIRST)
                    first = False
            else:
                reply = piece
    if reply is None:
        raise ProviderError("REASON_PROVIDER_UNAVAILABLE", "The model's answer was cut off.", retryable=True)
    return reply


def _answered(reply: ModelReply, spec: ModelSpec, record: CallRecord) -> AttemptResult:
    named = {"model": spec.name}
    record = _told(record, reply.usage, reply.request_id, reply.model, spec)
    if reply.cached:
        record = replace(record, usage=types.Usage())  # nobody was called
    if reply.finish == "refused":
        why = clean_text(reply.text)[:1000] or "The model declined to answer."
        return AttemptResult(
            events.STEP_STATUS_FAILED,
            failure=Failure("REASON_CONTENT_REFUSED", why, metadata=named),
            call=record,
        )
    if not reply.text.strip() and not reply.tool_uses:
        cut = ": it reached its limit on output tokens" if reply.finish == "length" else ""
        empty = Failure("REASON_MODEL_REPLY_INVALID", f"The model's reply is empty{cut}.", True, named)
        return AttemptResult(events.STEP_STATUS_FAILED, failure=empty, call=record)
    calls = tuple(AskedCall(use.name, use.arguments_json) for use in reply.tool_uses)
    output = sanitised_json(Reply(reply.text, calls, reply.finish == "length").value())
    if len(output.encode()) > MAX_RESULT_BYTES:
        large = Failure(
            "REASON_PAYLOAD_TOO_LARGE", f"The model's reply is larger than {MAX_RESULT_BYTES} bytes."
        )
        return AttemptResult(events.STEP_STATUS_FAILED, failure=large, call=record)
    return AttemptResult(events.STEP_STATUS_SUCCEEDED, output, call=record)


def _failed(
    error: ProviderError,
    spec: ModelSpec,
    record: CallRecord,
    chain: Sequence[ModelSpec],
    before: Sequence[FailedCall],
) -> AttemptResult:
    """The failure, and whether another attempt may succeed: also one that asks another model of the chain."""
    metadata = {"model": spec.name, **error.metadata}
    retryable, wait = error.retryable, error.retry_after_ms
    call = FailedCall(spec.name, error.reason, error.metadata.get("http_status", ""), wait)
    if len(chain) > 1 and is_to_blame(call):
        other = next_model(chain, (*before, call))
        retryable = other is not None
        if other is not None and other is not spec:
            metadata["fallback"] = other.name
            if wait:  # that is this model's, and the other one is asked sooner
                metadata["asked_to_wait_ms"], wait = str(wait), 0
    if wait:
        metadata["retry_after_ms"] = str(wait)
    failure = Failure(error.reason, clean_text(error.message)[:4096], retryable, metadata)
    record = _told(record, error.usage, error.request_id, "", spec)
    return AttemptResult(events.STEP_STATUS_FAILED, failure=failure, call=record)


def _told(
    record: CallRecord, usage: TokenUsage | None, request_id: str, model: str, spec: ModelSpec
) -> CallRecord:
    """The record of the call with what the provider said of it, and what that costs."""
    return replace(
        record,
        usage=used_by(usage, spec) if usage is not None else None,
        provider_request_id=clean_text(request_id)[:256],
        model=clean_text(model)[:256] or record.model,
    )
