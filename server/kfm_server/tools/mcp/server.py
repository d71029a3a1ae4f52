"""One MCP server: a session that one task keeps, and the calls that others make through it."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import anyio
import structlog
from anyio import BrokenResourceError, ClosedResourceError
from mcp.client.client import Client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Implementation,
    PaginatedRequestParams,
    ToolListChangedNotification,
)
from mcp_types import Tool as Listed
from pydantic import ValidationError

from kfm_server.breaker import Breaker, BreakerOpen, Outcome
from kfm_server.canonical import clean_text
from kfm_server.ports.mcp_settings import McpServerSpec
from kfm_server.ports.tools import Tool, ToolCall, ToolError, ToolSpec
from kfm_server.tools.mcp.http import UNREAD, http_transport
from kfm_server.tools.mcp.limits import MAX_PAGES, TOO_LARGE
from kfm_server.tools.mcp.listing import specs_of
from kfm_server.tools.mcp.results import value_of
from kfm_server.tools.mcp.stderr import Stderr
from kfm_server.tools.mcp.stdio import NotStarted, stdio_transport

log = structlog.get_logger(__name__)
FIRST_WAIT_SECONDS: Final = 0.5
"""Before the first attempt to connect again; twice as long after each that fails."""
MOST_WAIT_SECONDS: Final = 30.0
REFRESH_SECONDS: Final = 30.0
"""Between two looks at the tools, also of a server that does not tell of changes: it shows whether it is still there."""
CONNECT_SECONDS: Final = 20.0
"""Longest wait for a server to say what it is and has."""

_SESSION_GONE, _HTTP_ERROR = "Session terminated", "Server returned an error response"
"""What the SDK makes of a session that an HTTP server has forgotten, and of a status that is an error."""

PATIENCE_SECONDS: Final = 5.0
"""How long a call waits for a session that is being made."""

State = Literal["connecting", "up", "away"]
Supply = Callable[[str, Sequence[Tool]], list[str]]
"""Takes the tools of a source, in place of those before; answers why some are refused."""


class _Lost(Exception):
    """The session is no good any more; the message says why."""


class _Session:
    """One session, from its connection to its loss."""

    def __init__(self, connected: asyncio.Event, stderr: Stderr) -> None:
        self.stderr = stderr
        self.client: Client | None = None
        """Once its tools are known."""
        self._connected = connected
        self.lost = ""
        """Why it is no good any more."""
        self.asking = 0
        """Calls that wait for their answer."""
        self.repeatable = True
        """Whether a call that it broke under may do better in another one: not the one whose answer was too large."""
        self.news = asyncio.Event()
        """Its tools may have changed, or it is lost."""

    def lose(self, why: str) -> None:
        """It is no good any more; calls wait for another one from now on."""
        if not self.lost:
            self.lost = why
            self.repeatable = why != TOO_LARGE or self.asking != 1
            self._connected.clear()
        self.news.set()

    async def told(self, message: object) -> None:
        """What the server says unasked."""
        if isinstance(message, ToolListChangedNotification):
            self.news.set()


class McpServer:
    """The session of one server. `run` keeps it, in one task: what the SDK enters in a task it has to leave in it."""

    def __init__(self, spec: McpServerSpec, version: str, now: Callable[[], float], supply: Supply) -> None:
        """`version`: ours, as the server is told it; `now`: seconds, for the breaker."""
        self.spec = spec
        self.state: State = "connecting"
        self.why = ""
        """Why it is away; empty if it is not."""
        self.settled = asyncio.Event()
        """Set once it is known whether it answers."""
        self._version = version
        self._supply = supply
        self._breaker = Breaker(now, failures=spec.breaker_failures, open_seconds=spec.breaker_seconds)
        self.connected = asyncio.Event()
        """Set while calls can be made."""
        self._session = _Session(self.connected, Stderr(spec))
        self._listed: Mapping[str, ToolSpec] | None = None
        self._complaints: list[str] = []

    @property
    def failing(self) -> bool:
        """Whether its breaker keeps calls from it."""
        return self._breaker.state != "closed"

    async def run(self) -> None:
        """Connect, and again whenever the session is lost, until cancelled."""
        wait = FIRST_WAIT_SECONDS
        while True:
            self._session = session = _Session(self.connected, Stderr(self.spec))
            began = asyncio.get_running_loop().time()
            try:
                await self._hold(session)
            except Exception as error:  # the SDK and its transports raise anything, also in groups
                session.lose(_said(error))
            session.client = None
            if (self.state, self.why) != ("away", session.lost):
                # What it said is for who runs this server alone: `why` is told to those who call its tools.
                said = (
                    {"last": session.stderr.last, "stderr": session.stderr.tail}
                    if session.stderr.tail
                    else {}
                )
                log.warning("mcp_server_away", server=self.spec.name, error=session.lost, **said)
            self.state, self.why = "away", session.lost
            self.settled.set()
            if asyncio.get_running_loop().time() - began > MOST_WAIT_SECONDS:
                wait = FIRST_WAIT_SECONDS
            await asyncio.sleep(wait)
            wait = min(2 * wait, MOST_WAIT_SECONDS)

    async def _hold(self, session: _Session) -> None:
        """Connect, and stay so until the session is lost. Raises anything."""
        spec = self.spec
        client = Client(
            stdio_transport(spec, session.lose, session.stderr) if spec.command else http_transport(spec),
            read_timeout_seconds=CONNECT_SECONDS,
            message_handler=session.told,
            client_info=Implementation(name="kfm", version=self._version),
            cache=None,
        )
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_SECONDS):
                await stack.enter_async_context(client)
                await self._take(client)
            if session.lost:
                return
            session.client = client
            self.connected.set()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, session, client)
                await self._keep(session, client)
                tasks.cancel_scope.cancel()

    async def _keep(self, session: _Session, client: Client) -> None:
        """Look at the tools now and then, and when there is news, until the session is lost."""
        while True:
            self.state, self.why = "up", ""
            self.settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await session.news.wait()
            session.news.clear()
            if session.lost:
                return
            await self._take(client)

    async def _take(self, client: Client) -> None:
        """Read the list of tools and offer them."""
        listed: list[Listed] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            listed += page.tools
            cursor = page.next_cursor
            if cursor is None:
                break
        specs, refused = specs_of(self.spec, listed)
        if specs == self._listed and refused == self._complaints:
            return
        self._listed, self._complaints = specs, refused
        tools = [McpTool(self, name, spec) for name, spec in specs.items()]
        refused = refused + self._supply(self.spec.source, tools)
        log.info("mcp_server_tools", server=self.spec.name, offered=[t.spec.name for t in tools])
        for why in refused:
            log.warning("mcp_tool_refused", server=self.spec.name, error=why)

    async def _listen(self, session: _Session, client: Client) -> None:
        """Hear of changes from a server of the newer protocol; an older one tells them unasked."""
        if not (client.server_capabilities.tools and client.server_capabilities.tools.list_changed):
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    session.news.set()
        except (ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError) as error:
            log.debug("mcp_server_not_heard", server=self.spec.name, error=_said(error))

    async def call(self, name: str, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Call the tool that the server calls `name`. Raises ToolError."""
        source = self.spec.source
        try:
            permit = self._breaker.enter()
        except BreakerOpen as open_:
            raise ToolError(
                f"Calls of {source} failed {self.spec.breaker_failures} times in a row: "
                f"it is left alone for another {open_.seconds:.3g} s.",
                retryable=True,
            ) from None
        outcome: Outcome = "left"
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self.spec.deadline, PATIENCE_SECONDS)):
                    await self.connected.wait()
            session = self._session
            if session.client is None or session.lost:
                outcome = "failed"
                raise ToolError(
                    f"{_sentence(source)} is not connected: {session.lost or self.why or 'it has not answered yet'}.",
                    retryable=True,
                )
            session.asking += 1
            try:
                async with asyncio.timeout(self.spec.deadline):
                    result = await self._ask(session, session.client, name, arguments, call)
            except _Lost as lost:
                outcome = "failed"
                raise ToolError(
                    f"The connection with {source} broke: {lost}.", retryable=session.repeatable, unsure=True
                ) from None
            except TimeoutError:
                outcome = "failed"
                raise ToolError(
                    f"{_sentence(source)} did not answer within deadline={self.spec.deadline:g} s.",
                    retryable=True,
                    unsure=True,
                ) from None
            finally:
                session.asking -= 1
            outcome = "answered"
            return value_of(source, result)
        except ToolError:
            if outcome == "left":
                outcome = "answered"
            raise
        finally:
            self._breaker.leave(permit, outcome)

    async def _ask(
        self, session: _Session, client: Client, name: str, arguments: dict[str, Any], call: ToolCall
    ) -> CallToolResult:
        """Raises _Lost, ToolError."""

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            call.progress(message or (f"{progress:g}" if total is None else f"{progress:g} of {total:g}"))

        request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=arguments))
        source = self.spec.source
        try:
            # Not call_tool: it would hold the result against the server's own schema, with regular expressions that
            # can take for ever, in this thread.
            return await client.session.send_request(
                request, CallToolResult, self.spec.deadline + 1, progress_callback=tell
            )
        except MCPError as error:
            said, code = clean_text(error.error.message)[:1000], error.error.code
            if code == CONNECTION_CLOSED or (code == INVALID_REQUEST and said == _SESSION_GONE):
                session.lose(said)
                raise _Lost(session.lost) from None
            if code == INTERNAL_ERROR and said == _HTTP_ERROR:
                raise _Lost("it answered with an error of HTTP") from None
            if any(why in said for why in UNREAD):
                raise ToolError(
                    f"The answer of {source} was not read: {said}", retryable=False, unsure=True
                ) from None
            raise ToolError(f"{_sentence(source)} did not take the call: {said}") from None
        except ValidationError:
            raise ToolError(
                f"{_sentence(source)} answered what the protocol does not know, or asked for input."
            ) from None
        except (ClosedResourceError, BrokenResourceError, RuntimeError, OSError) as error:
            session.lose(_said(error))
            raise _Lost(session.lost) from None


class McpTool:
    """A tool of an MCP server, as any other."""

    def __init__(self, server: McpServer, name: str, spec: ToolSpec) -> None:
        """`name`: what the server calls it."""
        self._server = server
        self._name = name
        self.spec = spec

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Have the server do it. Raises ToolError."""
        return await self._server.call(self._name, arguments, call)


def _sentence(source: str) -> str:
    return source[:1].upper() + source[1:]


def _said(error: BaseException) -> str:
    """In one line, of a group the first that it holds."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, NotStarted):
        return str(error)
    text = clean_text(str(error)).split("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
