"""The tasks extension of MCP 2026-07-28: a turn is a task under the turn's own id.

Nothing is kept here: every answer is read from the turn, so any process gives it, and any turn can be asked for as a task.
"""

import contextlib
from collections.abc import Generator
from typing import Any

import mcp_types.jsonrpc as codes
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import CallToolRequestParams, CallToolResult, ElicitRequest, RequestParams, TextContent
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel
from xenocomm._gen.errors import InvalidArgument, StateConflict, TurnFinished, TurnNotFound, XenocommError
from xenocomm._gen.pool import pb
from xenocomm._gen.types import Outcome

from kfm_mcp import elicit, failures, views
from kfm_mcp.arguments import Refused, as_json
from kfm_mcp.bridge import Answer, Bridge, Context
from kfm_mcp.catalogue import Json

EXTENSION = "io.modelcontextprotocol/tasks"
POLL_MS = 1_000
"""Milliseconds between two looks at a task, as a hint."""
_PROTOCOL_ERRORS = {
    "REASON_PLAN_INVALID": codes.INVALID_PARAMS,
    "REASON_STEP_CRASHES_PROCESS": codes.INTERNAL_ERROR,
    "REASON_HISTORY_UNREADABLE": codes.INTERNAL_ERROR,
    "REASON_INTERNAL": codes.INTERNAL_ERROR,
}
"""Reasons that make a task `failed`: the call was wrong, or the server broke. The extension forbids it for a tool that ran
and failed: such a turn is `completed`, and its result is an error."""


class TaskParams(RequestParams):
    """Parameters of tasks/get and tasks/cancel."""

    task_id: str


class UpdateParams(TaskParams):
    """Parameters of tasks/update."""

    input_responses: dict[str, Any]


class Tasks:
    """The turns of a bridge, as tasks."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def install(self, server: Server[Any]) -> None:
        """Offer the extension and serve its methods."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", TaskParams, self.get)
        server.add_request_handler("tasks/update", UpdateParams, self.update)
        server.add_request_handler("tasks/cancel", TaskParams, self.cancel)

    async def call(self, context: Context, params: CallToolRequestParams) -> Answer | Json | None:
        """`Bridge.call`, but a start by a client that declares the extension is answered with a task.

        A wait is not: who cancels a task cancels its turn, and who cancels a wait does not.
        """
        answer = await self._bridge.call(context, params)
        if params.name != "kfm_turn_start" or not isinstance(answer, CallToolResult) or answer.is_error:
            return answer
        if not declared(context):
            return answer
        begun = answer.structured_content or {}
        with _protocol_errors():
            turn = await self._turn(begun["turn_id"])
        said = {"statusMessage": begun["note"]} if "note" in begun else {}
        return {"resultType": "task", **_task(turn), "status": _status(turn), **said}

    async def get(self, context: Context, params: TaskParams) -> Json:
        """The task as it stands, with the forms to fill in or its result. MCPError."""
        with _asked(context, params.task_id):
            self._bridge.starts.named(params.task_id)
            turn = await self._turn(params.task_id)
        task = {**_task(turn), "status": _status(turn)}
        raw = as_json(turn)
        asking = bool(elicit.waiting_steps(raw))
        view = views.turn(raw, answerable=self._bridge.answerable, waiting=asking)
        match task["status"]:
            case "working":
                if forms := self._forms(context, raw):
                    task |= {"status": "input_required", "inputRequests": forms}
                return task | {"statusMessage": view.text}
            case "completed":
                return task | {"result": _result(turn, view)}
            case "failed":
                code, reason = _PROTOCOL_ERRORS[turn.error.reason], {"reason": turn.error.reason}
                error = {"code": code, "message": turn.error.message, "data": reason}
                return task | {"statusMessage": view.text, "error": error}
            case _:
                return task | {"statusMessage": view.text}

    async def update(self, context: Context, params: UpdateParams) -> Json:
        """Hand on what a person answered. What nobody asks for, or no more, is ignored. MCPError."""
        with _asked(context, params.task_id):
            self._bridge.starts.named(params.task_id)
            turn = as_json(await self._turn(params.task_id))
            for step in elicit.waiting_steps(turn):
                given = params.input_responses.get(elicit.name_of(step))
                if given is not None and (said := elicit.said(step, elicit.form_back(given))):
                    with contextlib.suppress(StateConflict, TurnFinished):  # another was faster
                        await self._bridge.control(said[0], {"turn_id": params.task_id, **said[1]})
        return {}

    async def cancel(self, context: Context, params: TaskParams) -> Json:
        """Ask for the turn to be cancelled; one that has ended stays as it is. MCPError."""
        with _asked(context, params.task_id):
            self._bridge.starts.named(params.task_id)
            turn = await self._turn(params.task_id)
            if not turn.outcome:
                with contextlib.suppress(TurnFinished):
                    arguments = {"turn_id": params.task_id, "reason": "tasks/cancel"}
                    await self._bridge.control("kfm_turn_cancel", arguments)
        return {}

    async def _turn(self, turn_id: str) -> Any:
        request = pb("kfm.turn.v1.GetTurnRequest")(turn_id=turn_id)
        return (await self._bridge.gateway.call("TurnService.GetTurn", request)).turn

    def _forms(self, context: Context, turn: Json) -> Json:
        """The question of every step that needs a person, if they can be asked and answered here."""
        if not self._bridge.answerable or not elicit.shows_forms(context):
            return {}
        return {
            elicit.name_of(step): _wire(ElicitRequest(params=elicit.form_of(step)))
            for step in elicit.waiting_steps(turn)
        }


def declared(context: Context) -> bool:
    """Whether the client said with this call that it takes tasks; the older era has none of these."""
    client = context.session.client_params
    known = client.capabilities.extensions if client is not None else None
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and EXTENSION in (known or {})


def needed(context: Context) -> None:
    """MCPError if the client does not take tasks."""
    if not declared(context):
        raise MCPError(
            codes.MISSING_REQUIRED_CLIENT_CAPABILITY,
            f"The client must declare the extension {EXTENSION} with this call.",
            {"requiredCapabilities": {"extensions": {EXTENSION: {}}}},
        )


def _task(turn: Any) -> Json:
    """What every answer about a task has. `ttlMs` is null: a server keeps its turns unless it was told for how long."""
    tries = [attempt for step in turn.steps for attempt in step.attempts]
    times = [turn.submitted_at, turn.finished_at, *(t for a in tries for t in (a.dispatched_at, a.ended_at))]
    return {
        "taskId": turn.turn_id,
        "createdAt": turn.submitted_at.ToJsonString(),
        "lastUpdatedAt": max(times, key=lambda time: time.ToNanoseconds()).ToJsonString(),
        "ttlMs": None,
        "pollIntervalMs": POLL_MS,
    }


def _status(turn: Any) -> str:
    if not turn.outcome:
        return "working"
    if turn.outcome == Outcome.CANCELLED:
        return "cancelled"
    return "failed" if turn.error.reason in _PROTOCOL_ERRORS else "completed"


def _result(turn: Any, view: views.View) -> Json:
    """The result of the start: it fits the tool's schema, in which `next` is one call."""
    data = {"turn_id": turn.turn_id, "session_id": turn.session_id, **view.data}
    if calls := data.pop("next"):
        data["next"] = calls[0]
    text, wrong = TextContent(text=view.text), turn.outcome != Outcome.SUCCEEDED
    return _wire(CallToolResult(content=[text], structured_content=data, is_error=wrong))


def _wire(value: BaseModel) -> Json:
    return value.model_dump(by_alias=True, mode="json", exclude_none=True)


@contextlib.contextmanager
def _asked(context: Context, task_id: str) -> Generator[None]:
    """A call about a task that the client may make, whose failures are errors of the protocol."""
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(codes.METHOD_NOT_FOUND, "Method not found", context.method)
    needed(context)
    headers = getattr(context.request, "headers", None)
    if headers is not None and decode_header_value(headers.get(MCP_NAME_HEADER)) != task_id:
        raise MCPError(codes.HEADER_MISMATCH, f"The header {MCP_NAME_HEADER} is not the parameter 'taskId'.")
    with _protocol_errors():
        yield


@contextlib.contextmanager
def _protocol_errors() -> Generator[None]:
    try:
        yield
    except Refused as wrong:
        raise MCPError(codes.INVALID_PARAMS, str(wrong)) from None
    except (TurnNotFound, InvalidArgument) as error:
        raise MCPError(codes.INVALID_PARAMS, failures.words(error)) from None
    except XenocommError as error:
        raise MCPError(codes.INTERNAL_ERROR, failures.words(error)) from None
