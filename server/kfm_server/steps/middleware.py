"""The layers around a tool's call. Each does one thing and hands on; none retries, none appends."""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import parse_json, sanitised_json
from kfm_server.clock import Clock
from kfm_server.ports.models import never
from kfm_server.ports.steps import Attempt, AttemptResult, CallRecord, Failure, Progress
from kfm_server.ports.tools import PackTools, Tool
from kfm_server.tool_catalogue import ToolCatalogue, ToolEntry
from kfm_server.turns.planners.agent import own_tools

MAX_RESULT_BYTES: Final = 8 * 1024 * 1024
"""Largest output of a tool, as canonical JSON. What is too large for an event goes to a blob: not here."""

_UNSURE = frozenset(
    (
        types.EFFECT_CONTRACT_UNSPECIFIED,
        types.EFFECT_CONTRACT_AT_MOST_ONCE,
        types.EFFECT_CONTRACT_COMPENSATABLE,
    )
)


@dataclass(slots=True)
class Invocation:
    """An attempt on its way to its tool, with what the layers found out so far."""

    attempt: Attempt
    progress: Progress
    connection: Any
    tool: Tool | None = None
    entry: ToolEntry | None = None
    arguments: dict[str, Any] | None = None
    started: bool = False
    output: Any = None
    expired: Callable[[], bool] = never
    """Whether its time is over, for who is cancelled and wants to know why."""
    call: CallRecord | None = None
    """What is known of a model's call that was left before it answered."""


Handler = Callable[[Invocation], Coroutine[Any, Any, AttemptResult]]
Middleware = Callable[[Handler], Handler]


def compose(layers: Sequence[Middleware], innermost: Handler) -> Handler:
    """One handler of many: the first layer is the outermost."""
    return functools.reduce(lambda handler, layer: layer(handler), reversed(layers), innermost)


def failed(
    reason: str,
    message: str,
    *,
    retryable: bool = False,
    status: events.StepStatus = events.STEP_STATUS_FAILED,
    **metadata: str,
) -> AttemptResult:
    """An attempt that came to nothing."""
    return AttemptResult(status, failure=Failure(reason, message, retryable, metadata))


def given_up(attempt: Attempt) -> events.StepStatus:
    """What is known of an attempt that was started and did not answer: FAILED, or UNKNOWN where the effect may stand."""
    return events.STEP_STATUS_UNKNOWN if attempt.effect in _UNSURE else events.STEP_STATUS_FAILED


def with_log(log: Any, clock: Clock) -> Middleware:
    """Times the attempt, says how it went at level debug (failures too: they are events), and is its last guard.

    An exception that no layer below expected is logged whole here, at level error, and answered without its text.
    """
    enabled = log.is_enabled_for

    def layer(following: Handler) -> Handler:
        async def handle(invocation: Invocation) -> AttemptResult:
            began = clock.monotonic()
            try:
                result = await following(invocation)
            except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
                    raise  # asked for; else a tool or a provider let a cancellation of its own escape
                attempt = invocation.attempt
                log.error("step_broke", **facts(attempt), exc_info=error)
                status = given_up(attempt) if invocation.started else events.STEP_STATUS_FAILED
                result = failed(
                    "REASON_STEP_FAILED" if attempt.recipe else "REASON_TOOL_FAILED",
                    f"The {'model call' if attempt.recipe else 'tool'} failed unexpectedly; the server's log says how.",
                    status=status,
                )
            run_time_us = int((clock.monotonic() - began) * 1_000_000)
            if enabled(logging.DEBUG):
                log.debug(
                    "step_attempted",
                    **facts(invocation.attempt),
                    status=events.StepStatus.Name(result.status),
                    reason=result.failure.reason if result.failure else "",
                    run_time_us=run_time_us,
                )
            return AttemptResult(result.status, result.output_json, result.failure, run_time_us, result.call)

        return handle

    return layer


def facts(attempt: Attempt) -> dict[str, Any]:
    """What every log line about an attempt carries. Never arguments: they are the user's."""
    return {
        "turn_id": attempt.turn_id,
        "step_key": attempt.step_key,
        "attempt": attempt.attempt,
        "tool": attempt.tool,
        "tenant_id": attempt.context.tenant_id,
        "trace_id": attempt.context.trace_id,
    }


def nothing_awaited(tool: str) -> str:
    """For who awaits no tools."""
    del tool
    return ""


def with_tool(
    tools: Mapping[str, Tool],
    catalogue: ToolCatalogue,
    packs: PackTools | None = None,
    awaited: Callable[[str], str] = nothing_awaited,
) -> Middleware:
    """Finds the tool, one of the turn's own pack first, and holds it to the contract that the plan pinned."""

    def layer(following: Handler) -> Handler:
        async def handle(invocation: Invocation) -> AttemptResult:
            attempt = invocation.attempt
            tool, entry = tools.get(attempt.tool), catalogue.get(attempt.tool)
            keeps = attempt.personality
            if keeps is not None and (own := own_tools(keeps).get(attempt.tool)) is not None:
                entry, tool = own, packs.tool(keeps, attempt.tool) if packs is not None else None
            if tool is None or entry is None:
                if source := awaited(attempt.tool):
                    return failed(
                        "REASON_TOOL_UNAVAILABLE",
                        f"The tool {attempt.tool} comes from {source}, which has not answered yet.",
                        retryable=True,
                        tool=attempt.tool,
                    )
                return failed(
                    "REASON_TOOL_NOT_FOUND", f"There is no tool {attempt.tool[:80]!r}.", tool=attempt.tool
                )
            pinned = attempt.effect or types.EFFECT_CONTRACT_AT_MOST_ONCE
            if not attempt.compensation and pinned != (entry.effect or types.EFFECT_CONTRACT_AT_MOST_ONCE):
                return failed(
                    "REASON_STATE_CONFLICT",
                    f"The tool {attempt.tool!r} has changed its effect contract since the step was planned.",
                    tool=attempt.tool,
                )
            invocation.tool, invocation.entry = tool, entry
            return await following(invocation)

        return handle

    return layer


def with_arguments() -> Middleware:
    """Reads the arguments and holds them against the tool's schema."""

    def layer(following: Handler) -> Handler:
        async def handle(invocation: Invocation) -> AttemptResult:
            assert invocation.entry is not None
            try:
                arguments = parse_json(invocation.attempt.arguments_json or "{}")
            except ValueError as error:
                return failed("REASON_TOOL_ARGUMENTS_INVALID", f"The arguments are {error}")
            if not isinstance(arguments, dict):
                return failed("REASON_TOOL_ARGUMENTS_INVALID", "The arguments are not an object.")
            problem = invocation.entry.problem(arguments)
            if problem:
                return failed("REASON_TOOL_ARGUMENTS_INVALID", problem, tool=invocation.attempt.tool)
            invocation.arguments = arguments
            return await following(invocation)

        return handle

    return layer


def with_deadline(clock: Clock) -> Middleware:
    """Refuses a start that comes too late, and ends an attempt at its deadline."""

    def layer(following: Handler) -> Handler:
        async def handle(invocation: Invocation) -> AttemptResult:
            attempt = invocation.attempt
            now = clock.now_us()
            if attempt.effect != types.EFFECT_CONTRACT_PURE and attempt.start_by_us < now:
                late = (now - attempt.start_by_us) // 1000
                return failed(
                    "REASON_FENCED",
                    f"The step was not started: it is {late} ms too late for that.",
                    retryable=True,
                )
            # Between start_by and deadline lies the step's timeout: who starts early gets no more than that.
            left = (attempt.deadline_us - max(now, attempt.start_by_us)) / 1_000_000
            if left <= 0:
                return failed(
                    "REASON_FENCED", "The step was not started: its deadline has passed.", retryable=True
                )
            timer = asyncio.timeout(left)
            invocation.expired = timer.expired
            try:
                async with timer:
                    return await following(invocation)
            except TimeoutError:
                if not timer.expired():
                    raise
                message = f"The step took longer than {left:.3g} s."
                named: dict[str, str] = {}
                if attempt.recipe is not None:
                    asked = invocation.call.model if invocation.call else attempt.recipe.model
                    message = f"The model {asked} did not answer within {left:.3g} s."
                    named = {"model": asked}
                late = failed(
                    "REASON_STEP_TIMEOUT", message, retryable=True, status=given_up(attempt), **named
                )
                return replace(late, call=invocation.call)

        return handle

    return layer


def with_bound(most: int = MAX_RESULT_BYTES) -> Middleware:
    """Writes the tool's output as canonical, sanitised JSON, and refuses what is none or too large."""

    def layer(following: Handler) -> Handler:
        async def handle(invocation: Invocation) -> AttemptResult:
            result = await following(invocation)
            if result.status != events.STEP_STATUS_SUCCEEDED:
                return result
            try:
                text = sanitised_json(invocation.output)
            except ValueError as error:
                return failed("REASON_TOOL_FAILED", f"The tool's output is no JSON value: {error}")
            if len(text) > most or (len(text) * 4 > most and len(text.encode()) > most):
                return failed("REASON_PAYLOAD_TOO_LARGE", f"The tool's output is larger than {most} bytes.")
            return AttemptResult(result.status, text)

        return handle

    return layer
