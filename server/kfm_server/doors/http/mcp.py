"""`/mcp`: the bridge to the Model Context Protocol, loaded when it is first asked for.

Loading it takes most of a second; a server without callers, or without the extra, starts as ever.
"""

import asyncio
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from kfm_server.doors.binding import is_loopback, join_address, split_address, token_matches
from kfm_server.doors.mcp_extra import is_of_mcp_extra

log = structlog.get_logger(__name__)

_LOADED = ("kfm_mcp.bridge", "kfm_mcp.gateway", "kfm_mcp.http")
INVALID_REQUEST, INTERNAL_ERROR = -32600, -32603
"""Codes of JSON-RPC."""
MOST_REQUESTS = 200
"""Requests at once, open streams among them; more are refused, so that health and metrics find room at the door."""


class McpMount:
    """An ASGI application in front of the bridge: it asks for the token, and loads the rest on the first call."""

    def __init__(
        self, *, address: str, grpc: Callable[[], str], token: str, groups: tuple[str, ...] = ()
    ) -> None:
        """`address` is where the HTTP door listens, `grpc` answers where this server's gRPC door does."""
        self._host = split_address(address)[0]
        self._grpc = grpc
        self._token = token
        self._groups = groups
        self._open = 0
        self._loading = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._endpoint: Any = None
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        header = Request(scope).headers.get("authorization", "")
        if self._token and not token_matches(header, self._token):
            title = (
                "The token sent is wrong: the header `Authorization` must be `Bearer` and the server's token."
                if header
                else "The server asks for its token: send the header `Authorization: Bearer <token>`."
            )
            refusal = _refusal(401, "REASON_UNAUTHENTICATED", title, {"WWW-Authenticate": "Bearer"})
            return await refusal(scope, receive, send)
        if self._open >= MOST_REQUESTS:
            title = f"The server answers {MOST_REQUESTS} requests of MCP already."
            return await _refusal(503, "REASON_OVERLOADED", title, {"Retry-After": "1"})(scope, receive, send)
        self._open += 1
        try:
            endpoint = await self._loaded()
            if self._stopping.is_set():
                title = "The server is stopping."
                return await _refusal(503, "REASON_DRAINING", title, {"Retry-After": "1"})(
                    scope, receive, send
                )
            if endpoint is None:
                title = "MCP is an extra of this server: kfm-server[mcp]."
                return await _refusal(501, "REASON_UNIMPLEMENTED", title, {})(scope, receive, send)
            return await endpoint(scope, receive, send)
        finally:
            self._open -= 1

    async def stop(self) -> None:
        """End the sessions; what is being answered is cut off."""
        self._stopping.set()
        async with self._loading:  # it may be on its way
            if self._serving is not None:
                await self._serving

    async def _loaded(self) -> Any:
        async with self._loading:
            if self._endpoint is None and not self._stopping.is_set():
                try:
                    # In a thread: turns go on meanwhile.
                    bridge, gateway, http = [
                        await asyncio.to_thread(importlib.import_module, m) for m in _LOADED
                    ]
                except ModuleNotFoundError as missing:
                    if is_of_mcp_extra(missing):
                        return None
                    raise
                made = http.McpEndpoint(
                    bridge.Bridge(gateway.Gateway(self._own_server, self._token), groups=self._groups),
                    host=self._host if is_loopback(self._host) else "",
                )
                ready = asyncio.Event()
                self._serving = asyncio.create_task(self._serve(made, ready), name="mcp")
                await ready.wait()
                self._endpoint = made
            return self._endpoint

    def _own_server(self) -> str:
        """How this process dials its own gRPC door, which may listen on every address."""
        host, port = split_address(self._grpc())
        return join_address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)

    async def _serve(self, endpoint: Any, ready: asyncio.Event) -> None:
        """The sessions' task group must be entered and left by one task."""
        try:
            async with endpoint.running():
                ready.set()
                await self._stopping.wait()
        finally:
            ready.set()


def _refusal(status: int, reason: str, words: str, headers: Mapping[str, str]) -> Response:
    """A refusal as an error of the protocol: of any other body, clients show their users nothing."""
    code = INVALID_REQUEST if status < 500 else INTERNAL_ERROR
    error = {"code": code, "message": words, "data": {"reason": reason}}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status, dict(headers))
