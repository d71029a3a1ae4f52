"""One attempt of one step: whatever the tool does, the answer is a result."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types
from kfm_server import failpoints
from kfm_server.context import ExecutionContext
from kfm_server.ports.steps import Attempt, AttemptResult
from kfm_server.ports.tools import ToolCall, ToolError, ToolSpec
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.calculator import Calculator
from kfm_server.tools.registry import ToolRegistry
from structlog.testing import capture_logs

pytestmark = pytest.mark.requirement("R4")

_NOW = 1_000_000_000
_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}


class FixedClock:
    def now_us(self) -> int:
        return _NOW

    def monotonic(self) -> float:
        return 0.0


class Scripted:
    """A tool that does what the test says."""

    def __init__(
        self,
        body: Callable[[dict[str, Any], ToolCall], Awaitable[Any]],
        effect: types.EffectContract = types.EFFECT_CONTRACT_PURE,
        name: str = "scripted",
    ) -> None:
        self.spec = ToolSpec(name, "Does what the test says.", _SCHEMA, effect)
        self.calls: list[ToolCall] = []
        self._body = body

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        self.calls.append(call)
        return await self._body(arguments, call)


def _attempt(**changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "context": ExecutionContext(tenant_id="acme", principal="ann"),
        "turn_id": "turn_1",
        "step_key": "s1",
        "attempt": 2,
        "kind": types.STEP_KIND_TOOL,
        "tool": "scripted",
        "arguments_json": "{}",
        "effect": types.EFFECT_CONTRACT_PURE,
        "key": "turn_1:s1",
        "epoch": 7,
        "start_by_us": _NOW + 1_000_000,
        "deadline_us": _NOW + 30_000_000,
    }
    return Attempt(**(fields | changes))


async def _run(
    given: Any, progress: Callable[[str], None] = lambda message: None, **changes: Any
) -> AttemptResult:
    registry = ToolRegistry([given])
    changes.setdefault("effect", given.spec.effect)
    return await StepProcessor(registry.tools, registry.catalogue, FixedClock()).run(
        _attempt(tool=changes.pop("tool", given.spec.name), **changes), progress, changes.get("connection")
    )


def _reason(result: AttemptResult) -> str:
    assert result.failure is not None
    return result.failure.reason


async def _nothing(arguments: dict[str, Any], call: ToolCall) -> Any:
    return {}


async def test_a_calculation_succeeds_with_canonical_output() -> None:
    result = await _run(Calculator(), arguments_json='{"expression":"(17 + 5) * 3 / 2"}')
    assert result.status == events.STEP_STATUS_SUCCEEDED
    assert json.loads(result.output_json)["result"] == 33
    assert result.output_json.startswith('{"exact":true,"expression"')


async def test_a_tool_sees_who_calls_and_tells_how_far_it_is() -> None:
    told: list[str] = []

    async def body(arguments: dict[str, Any], call: ToolCall) -> Any:
        call.progress("half\x07way")
        return arguments

    tool = Scripted(body)
    result = await _run(tool, told.append, arguments_json='{"n":1}')
    assert (result.output_json, told) == ('{"n":1}', ["halfway"])
    call = tool.calls[0]
    assert (call.key, call.attempt, call.epoch, call.tenant_id, call.principal) == (
        "turn_1:s1",
        2,
        7,
        "acme",
        "ann",
    )


@pytest.mark.parametrize(
    ("changes", "reason", "said"),
    [
        ({"tool": "nope"}, "REASON_TOOL_NOT_FOUND", "'nope'"),
        ({"kind": types.STEP_KIND_HUMAN}, "REASON_UNIMPLEMENTED", "kind"),
        ({"arguments_json": "{"}, "REASON_TOOL_ARGUMENTS_INVALID", "not JSON"),
        ({"arguments_json": "[]"}, "REASON_TOOL_ARGUMENTS_INVALID", "not an object"),
        (
            {"arguments_json": '{"n":"x"}'},
            "REASON_TOOL_ARGUMENTS_INVALID",
            '/n: "x" is not of type "integer"',
        ),
        ({"arguments_json": '{"m":1}'}, "REASON_TOOL_ARGUMENTS_INVALID", "'m' was unexpected"),
        ({"effect": types.EFFECT_CONTRACT_IDEMPOTENT}, "REASON_STATE_CONFLICT", "effect contract"),
        ({"deadline_us": _NOW}, "REASON_FENCED", "deadline"),
    ],
)
async def test_what_cannot_be_started_is_not_started(changes: dict[str, Any], reason: str, said: str) -> None:
    tool = Scripted(_nothing)
    result = await _run(tool, **changes)
    assert result.status == events.STEP_STATUS_FAILED
    assert _reason(result) == reason
    assert result.failure is not None and said in result.failure.message
    assert tool.calls == []


@pytest.mark.requirement("R4", "E1")
async def test_a_process_that_woke_too_late_starts_nothing_but_pure_steps() -> None:
    for effect in (
        types.EFFECT_CONTRACT_IDEMPOTENT,
        types.EFFECT_CONTRACT_TRANSACTIONAL,
        types.EFFECT_CONTRACT_AT_MOST_ONCE,
    ):
        tool = Scripted(_nothing, effect)
        assert _reason(await _run(tool, start_by_us=_NOW - 1)) == "REASON_FENCED"
        assert tool.calls == []
    assert (await _run(Scripted(_nothing), start_by_us=_NOW - 1)).status == events.STEP_STATUS_SUCCEEDED


@pytest.mark.parametrize(
    ("retryable", "reason"), [(False, "REASON_TOOL_FAILED"), (True, "REASON_TOOL_UNAVAILABLE")]
)
async def test_a_tools_own_error_is_told_as_it_stands(retryable: bool, reason: str) -> None:
    async def body(arguments: dict[str, Any], call: ToolCall) -> Any:
        raise ToolError("No such todo.", retryable=retryable)

    result = await _run(Scripted(body))
    assert result.failure is not None
    assert (result.failure.reason, result.failure.message, result.failure.retryable) == (
        reason,
        "No such todo.",
        retryable,
    )


@pytest.mark.parametrize(
    ("effect", "status"),
    [
        (types.EFFECT_CONTRACT_PURE, events.STEP_STATUS_FAILED),
        (types.EFFECT_CONTRACT_IDEMPOTENT, events.STEP_STATUS_FAILED),
        (types.EFFECT_CONTRACT_AT_MOST_ONCE, events.STEP_STATUS_UNKNOWN),
    ],
)
async def test_an_error_that_leaves_the_effect_open_ends_as_the_contract_says(
    effect: types.EffectContract, status: events.StepStatus
) -> None:
    async def body(arguments: dict[str, Any], call: ToolCall) -> Any:
        raise ToolError("The connection broke.", retryable=True, unsure=True)

    result = await _run(Scripted(body, effect))
    assert (result.status, _reason(result)) == (status, "REASON_TOOL_UNAVAILABLE")


async def test_a_tool_that_its_source_has_not_brought_yet_is_worth_another_attempt() -> None:
    registry = ToolRegistry([])
    registry.expect("the MCP server files", "files_")
    processor = StepProcessor(registry.tools, registry.catalogue, FixedClock(), awaited=registry.awaited)

    async def run(tool: str) -> AttemptResult:
        return await processor.run(_attempt(tool=tool), lambda message: None)

    early = await run("files_read")
    assert early.failure is not None
    assert (_reason(early), early.failure.retryable) == ("REASON_TOOL_UNAVAILABLE", True)
    assert "the MCP server files, which has not answered yet" in early.failure.message
    registry.supply("the MCP server files", [Scripted(_nothing, name="files_write")])
    assert _reason(await run("files_read")) == "REASON_TOOL_NOT_FOUND"
    assert (await run("files_write")).status == events.STEP_STATUS_SUCCEEDED


@pytest.mark.parametrize(
    ("effect", "status"),
    [
        (types.EFFECT_CONTRACT_PURE, events.STEP_STATUS_FAILED),
        (types.EFFECT_CONTRACT_IDEMPOTENT, events.STEP_STATUS_FAILED),
        (types.EFFECT_CONTRACT_AT_MOST_ONCE, events.STEP_STATUS_UNKNOWN),
    ],
)
@pytest.mark.parametrize(
    "error",
    [KeyError("secret"), TimeoutError("secret"), SystemExit("secret"), asyncio.CancelledError("secret")],
)
async def test_an_unexpected_error_is_logged_whole_and_told_opaquely(
    error: BaseException, effect: types.EffectContract, status: events.StepStatus
) -> None:
    async def body(arguments: dict[str, Any], call: ToolCall) -> Any:
        raise error

    with capture_logs() as logs:
        result = await _run(Scripted(body, effect))
    assert (result.status, _reason(result)) == (status, "REASON_TOOL_FAILED")
    assert result.failure is not None and "secret" not in result.failure.message
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["step_broke"]
    broke = next(entry for entry in logs if entry["event"] == "step_broke")
    assert "secret" in repr(broke["exc_info"]) or "secret" in repr(broke["exc_info"].__cause__)


@pytest.mark.parametrize(
    ("effect", "status"),
    [
        (types.EFFECT_CONTRACT_PURE, events.STEP_STATUS_FAILED),
        (types.EFFECT_CONTRACT_AT_MOST_ONCE, events.STEP_STATUS_UNKNOWN),
        (types.EFFECT_CONTRACT_COMPENSATABLE, events.STEP_STATUS_UNKNOWN),
    ],
)
async def test_an_attempt_gets_its_timeout_and_no_more_however_early_it_starts(
    effect: types.EffectContract, status: events.StepStatus
) -> None:
    async def body(arguments: dict[str, Any], call: ToolCall) -> Any:
        await asyncio.Event().wait()

    tool = Scripted(body, effect)
    undo = Scripted(_nothing, types.EFFECT_CONTRACT_IDEMPOTENT)
    undo.spec = ToolSpec("undo", "Undoes.", {"type": "object"}, types.EFFECT_CONTRACT_IDEMPOTENT)
    compensation = "undo" if effect == types.EFFECT_CONTRACT_COMPENSATABLE else ""
    tool.spec = ToolSpec("scripted", "Waits.", _SCHEMA, effect, compensation)
    registry = ToolRegistry([tool, undo])
    processor = StepProcessor(registry.tools, registry.catalogue, FixedClock())
    result = await processor.run(
        _attempt(effect=effect, start_by_us=_NOW + 60_000_000, deadline_us=_NOW + 60_010_000),
        lambda message: None,
    )
    assert (result.status, _reason(result)) == (status, "REASON_STEP_TIMEOUT")
    assert result.failure is not None and result.failure.retryable


async def test_cancellation_goes_through() -> None:
    started = asyncio.Event()

    async def body(arguments: dict[str, Any], call: ToolCall) -> Any:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(_run(Scripted(body)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (float("nan"), "REASON_TOOL_FAILED"),
        ({"a": object()}, "REASON_TOOL_FAILED"),
        ({1: 2}, "REASON_TOOL_FAILED"),
        ("x" * 9_000_000, "REASON_PAYLOAD_TOO_LARGE"),
        ("\u20ac" * 3_000_000, "REASON_PAYLOAD_TOO_LARGE"),
    ],
    ids=["nan", "object", "integer key", "large", "large in bytes"],
)
async def test_an_output_that_cannot_be_kept_is_refused(output: Any, reason: str) -> None:
    async def body(arguments: dict[str, Any], call: ToolCall) -> Any:
        return output

    assert _reason(await _run(Scripted(body))) == reason


async def test_an_output_below_the_bound_comes_whole() -> None:
    async def body(arguments: dict[str, Any], call: ToolCall) -> Any:
        return "x" * 1_000_000 + "\x00"

    assert len((await _run(Scripted(body))).output_json) == 1_000_002


async def test_a_layer_can_be_added() -> None:
    seen: list[str] = []

    def layer(following: Any) -> Any:
        async def handle(invocation: Any) -> AttemptResult:
            seen.append(invocation.attempt.tool)
            return await following(invocation)

        return handle

    registry = ToolRegistry([Scripted(_nothing)])
    await StepProcessor(registry.tools, registry.catalogue, FixedClock(), layers=(layer,)).run(
        _attempt(), lambda message: None
    )
    assert seen == ["scripted"]


async def test_nothing_of_the_arguments_is_logged() -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        await _run(Calculator(), arguments_json='{"expression":"31337 + 1"}')
    structlog.reset_defaults()  # the capture left a configuration, by which others would log to stdout
    assert [entry["event"] for entry in logs] == ["step_attempted"]
    assert "31337" not in repr(logs)


def test_the_points_around_a_tool_are_declared() -> None:
    assert {"tool.start.before", "tool.start.after", "tool.result"} <= failpoints.POINTS
