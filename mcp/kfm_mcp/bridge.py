"""The tools at work: a call comes in, goes to the server as an RPC, and its answer is made readable."""

import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp_types import CallToolRequestParams, CallToolResult, InputRequiredResult, TextContent
from xenocomm._gen.errors import XenocommError
from xenocomm._gen.pool import pb
from xenocomm._gen.types import SettleAs
from xenocomm.failures import ConnectFailed

from kfm_mcp import elicit, failures, views
from kfm_mcp.arguments import Refused, as_json, split
from kfm_mcp.catalogue import LONGEST_WAIT_S, ToolEntry, entries, offered
from kfm_mcp.gateway import Gateway
from kfm_mcp.progress import told
from kfm_mcp.starts import Starts, caller, fingerprint

log = logging.getLogger(__name__)

Context = ServerRequestContext[Any, Any]
Answer = CallToolResult | InputRequiredResult

KEY_META = "kfm/idempotency_key"
"""Where a host may name the key of a start without its model's knowledge."""
KEY_HEADER = "idempotency-key"
_CANCEL_S = 5.0


@dataclass(slots=True)
class Bridge:
    """One bridge to one server. `groups` are the groups of tools that are on beside the default one."""

    gateway: Gateway
    groups: tuple[str, ...] = ()
    read_only: bool = False
    starts: Starts = field(default_factory=Starts)
    tools: dict[str, ToolEntry] = field(init=False)

    def __post_init__(self) -> None:
        """ValueError for a group that is not known."""
        self.tools = offered(self.groups, read_only=self.read_only)

    @property
    def answerable(self) -> bool:
        """Whether steps that wait for a person can be answered here."""
        return "kfm_step_answer" in self.tools

    async def call(self, context: Context, params: CallToolRequestParams) -> Answer | None:
        """Run one tool; what fails is an answer too. None if there is no such tool."""
        entry = self.tools.get(params.name)
        if entry is None:
            return failed(self._why_off(params.name)) if params.name in entries() else None
        try:
            answer = await self._run(context, entry, params)
            return answer if isinstance(answer, InputRequiredResult) else _answer(answer)
        except Refused as wrong:
            return failed(str(wrong))
        except XenocommError as error:
            if isinstance(error, ConnectFailed):
                log.error("no server answers at %s, which %s needs", self.gateway.endpoint, entry.name)
            return failed(failures.words(error))

    async def _run(
        self, context: Context, entry: ToolEntry, params: CallToolRequestParams
    ) -> views.View | InputRequiredResult:
        request, own = split(entry, params.arguments)
        full = own.get("detail") == "full"
        turn_id: str = getattr(request, "turn_id", "")
        if turn_id:
            self.starts.named(turn_id)
        match entry.name:
            case "kfm_turn_start":
                return await self._start(context, entry, request)
            case "kfm_turn_wait":
                attached = bool(own.get("attached"))
                if attached and "kfm_turn_cancel" not in self.tools:
                    raise Refused(f"attached would cancel the turn. {self._why_off('kfm_turn_cancel')}")
                answer = await self._wait(context, entry, request, attached=attached)
                return await self._with_person(context, params, answer, full=full)
            case "kfm_turns_list":
                request.page_size = min(request.page_size or 20, 50)
                return views.turns(as_json(await self.gateway.call(entry.rpc, request)), full=full)
            case "kfm_turn_events":
                return views.events(as_json(await self.gateway.call(entry.rpc, request)), turn_id, full=full)
            case "kfm_turn_get":
                answer = await self.gateway.call(entry.rpc, request)
                return self._turn(answer, full=full, offset=int(own.get("output_offset", 0)))
            case "kfm_turn_cancel" | "kfm_step_answer" | "kfm_step_settle":
                _key_control(entry, request)
                return self._turn(await self.gateway.call(entry.rpc, request))
            case _:
                return views.plain(as_json(await self.gateway.call(entry.rpc, request)))

    async def _start(self, context: Context, entry: ToolEntry, request: Any) -> views.View:
        request.idempotency_key = request.idempotency_key or named_key(context)
        if request.idempotency_key:
            answer = await self.gateway.call(entry.rpc, request)
            return views.started(answer.turn_id, answer.session_id, again=False)
        client, call = caller(context), request.turn.SerializeToString(deterministic=True).hex()
        request.idempotency_key, again = self.starts.key(client, call)
        try:
            answer = await self.gateway.call(entry.rpc, request)
        except XenocommError as error:
            if not error.retryable and error.row.http_status < 500:
                self.starts.refused(client, call)
            raise
        self.starts.started(answer.turn_id, client, call)
        return views.started(answer.turn_id, answer.session_id, again)

    async def _wait(self, context: Context, entry: ToolEntry, request: Any, *, attached: bool) -> Any:
        asked = (
            request.timeout.ToTimedelta()
            if request.HasField("timeout")
            else timedelta(seconds=LONGEST_WAIT_S)
        )
        bound = min(max(asked.total_seconds(), 0.0), LONGEST_WAIT_S)
        request.timeout.FromTimedelta(timedelta(seconds=bound))
        async with self._cancelled_with(request.turn_id if attached else ""):
            async with told(context, self.gateway, request.turn_id):
                return await self.gateway.call(entry.rpc, request, longest=bound)

    async def _with_person(
        self, context: Context, params: CallToolRequestParams, answer: Any, *, full: bool
    ) -> views.View | InputRequiredResult:
        """The turn as it is; but if a step of it needs a person, and the client can ask one, as it is after the answer."""
        steps = elicit.waiting_steps(as_json(answer.turn))
        if not steps or not self.answerable or not elicit.shows_forms(context):
            return self._turn(answer, full=full)
        said = await elicit.ask(context, steps[0], params.input_responses)
        if isinstance(said, InputRequiredResult):
            return said
        if said is None:
            return self._turn(answer, full=full)
        return self._turn(await self.control(said[0], {"turn_id": answer.turn.turn_id, **said[1]}), full=full)

    async def control(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool that cancels, answers or settles; the RPC's answer. Refused, also if the tool is off; XenocommError."""
        entry = self.tools.get(tool)
        if entry is None:
            raise Refused(self._why_off(tool))
        request, _ = split(entry, arguments)
        _key_control(entry, request)
        return await self.gateway.call(entry.rpc, request)

    @contextlib.asynccontextmanager
    async def _cancelled_with(self, turn_id: str) -> AsyncGenerator[None]:
        """When the call is cancelled, cancel the turn, if one is named."""
        try:
            yield
        except anyio.get_cancelled_exc_class():
            if turn_id:
                with anyio.move_on_after(_CANCEL_S, shield=True):
                    entry = entries()["kfm_turn_cancel"]
                    request = pb(entry.request)(turn_id=turn_id, reason="the attached call was cancelled")
                    _key_control(entry, request)
                    try:
                        await self.gateway.call(entry.rpc, request)
                    except XenocommError as error:
                        log.warning(
                            "turn %s, attached to a call that was cancelled, was not: %s",
                            turn_id,
                            error.reason,
                        )
            raise

    def _turn(self, answer: Any, *, full: bool = False, offset: int = 0) -> views.View:
        return views.turn(as_json(answer.turn), full=full, offset=offset, answerable=self.answerable)

    def _why_off(self, name: str) -> str:
        group = entries()[name].group
        if group and group not in self.groups:
            return f"{name} is off. It is of the group {group!r}: {views.turned_on(group)}."
        return f"{name} is off: this bridge was started with --read-only."


def named_key(context: Context) -> str:
    """The idempotency key that the host gave beside the arguments; empty if none."""
    meta: Mapping[str, Any] = context.meta or {}
    key = meta.get(KEY_META)
    if isinstance(key, str):
        return key
    headers: Mapping[str, str] = getattr(context.request, "headers", None) or {}
    return headers.get(KEY_HEADER, "")


def failed(text: str) -> CallToolResult:
    """An answer that tells of a failure; it has no structured content, which would have to fit the schema of success."""
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


def _answer(view: views.View) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=view.text)], structured_content=view.data)


def _key_control(entry: ToolEntry, request: Any) -> None:
    """A control that is repeated is one: its key is made from all that it says. To settle as RETRY may be meant again:
    a fresh key, and the state of the step decides.
    """
    if request.idempotency_key:
        return
    if getattr(request, "settle_as", 0) == SettleAs.RETRY:
        request.idempotency_key = f"mcp-{secrets.token_hex(16)}"
    else:
        said = fingerprint(entry.rpc, request.SerializeToString(deterministic=True).hex())
        request.idempotency_key = f"mcp-{said.hex()[:32]}"
