"""The step processor: performs one attempt of one step. It never retries and never appends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog
from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types

from kfm_server import failpoints
from kfm_server.canonical import clean_text
from kfm_server.clock import Clock, SystemClock
from kfm_server.context import work_done, work_on
from kfm_server.ports.steps import Attempt, AttemptResult, Progress
from kfm_server.ports.tools import PackTools, Tool, ToolCall, ToolError
from kfm_server.steps.middleware import (
    MAX_RESULT_BYTES,
    Handler,
    Invocation,
    Middleware,
    compose,
    failed,
    given_up,
    nothing_awaited,
    with_arguments,
    with_bound,
    with_deadline,
    with_log,
    with_tool,
)
from kfm_server.tool_catalogue import ToolCatalogue
from kfm_server.trace_ids import attempt_traceparent

MAX_PROGRESS = 4096
"""Longest progress message that is passed on, in characters."""

_START_BEFORE = failpoints.declare("tool.start.before")
_START_AFTER = failpoints.declare("tool.start.after")
_RESULT = failpoints.declare("tool.result")


class StepProcessor:
    """The StepRunner of the pool `local`: a chain of layers around the tool's call."""

    def __init__(
        self,
        tools: Mapping[str, Tool],
        catalogue: ToolCatalogue,
        clock: Clock | None = None,
        *,
        log: Any = None,
        models: Handler | None = None,
        packs: PackTools | None = None,
        awaited: Callable[[str], str] = nothing_awaited,
        max_result_bytes: int = MAX_RESULT_BYTES,
        layers: Sequence[Middleware] = (),
        traced: bool = False,
    ) -> None:
        """Compose the chain.

        Args:
            tools: what can be called, by name; it may change, and so may the catalogue.
            catalogue: the same tools, as they are planned with.
            clock: tells `start_by` and deadlines.
            log: a structlog logger; bound when the processor is made.
            models: performs model and plan steps (steps/model_step.py); without it there are none.
            packs: finds the tools that personalities bring; without it there are none.
            awaited: who is to bring the tool of a name and has not answered yet; empty if nobody is.
            max_result_bytes: largest output, as canonical JSON.
            layers: further layers, innermost: they see validated arguments within the deadline.
            traced: an attempt has a span of its own: what it calls gets that one as its parent.
        """
        self._traced = traced
        clock = clock or SystemClock()
        log = log if log is not None else structlog.get_logger("kfm.steps").bind()
        around, within = with_log(log, clock), with_deadline(clock)
        call_tool = compose(
            (
                around,
                with_tool(tools, catalogue, packs, awaited),
                with_arguments(),
                with_bound(max_result_bytes),
                within,
                *layers,
            ),
            _call,
        )
        call_model = compose((around, within), models or _unknown)
        self._handlers: dict[int, Handler] = {
            types.STEP_KIND_TOOL: call_tool,
            types.STEP_KIND_MODEL: call_model,
            types.STEP_KIND_PLAN: call_model,
        }

    async def run(self, attempt: Attempt, progress: Progress, connection: Any = None) -> AttemptResult:
        """Perform the attempt within its deadline; raises nothing but cancellation (see ports/steps)."""
        handle = self._handlers.get(attempt.kind, _unknown)
        context = attempt.context
        stated = work_on(
            trace_id=context.trace_id,
            turn_id=attempt.turn_id,
            step_key=attempt.step_key,
            tenant_id=context.tenant_id,
        )
        if self._traced:
            of_attempt = attempt_traceparent(
                context.trace_id, context.traceparent, attempt.turn_id, attempt.step_key, attempt.attempt
            )
            attempt = replace(attempt, context=replace(context, traceparent=of_attempt))
        try:
            return await handle(Invocation(attempt, progress, connection))
        finally:
            work_done(stated)


async def _unknown(invocation: Invocation) -> AttemptResult:
    return failed("REASON_UNIMPLEMENTED", "Steps of this kind are not performed here.")


async def _call(invocation: Invocation) -> AttemptResult:
    attempt = invocation.attempt
    tool, arguments = invocation.tool, invocation.arguments
    assert tool is not None and arguments is not None

    def tell(message: str) -> None:
        invocation.progress(clean_text(message)[:MAX_PROGRESS])

    call = ToolCall(
        attempt.key,
        attempt.attempt,
        attempt.epoch,
        attempt.context.tenant_id,
        attempt.context.principal,
        tell,
        invocation.connection,
        attempt.personality,
    )
    failpoints.hit(_START_BEFORE)
    invocation.started = True
    try:
        coroutine = tool.call(arguments, call)
        failpoints.hit(_START_AFTER)
        invocation.output = await coroutine
    except ToolError as error:
        reason = "REASON_TOOL_UNAVAILABLE" if error.retryable else "REASON_TOOL_FAILED"
        status = given_up(attempt) if error.unsure else events.STEP_STATUS_FAILED
        said = clean_text(str(error))[:4096]
        return failed(reason, said, retryable=error.retryable, status=status, tool=attempt.tool)
    failpoints.hit(_RESULT)
    return AttemptResult(events.STEP_STATUS_SUCCEEDED)
