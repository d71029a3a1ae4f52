"""MCP over Streamable HTTP: the SDK's transport over a client whose answers have a bound, without proxies of the environment."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import httpx2
from mcp.client.streamable_http import streamable_http_client

from kfm_server.ports.mcp_settings import McpServerSpec
from kfm_server.tools.mcp.limits import MAX_MESSAGE_BYTES

_CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 300.0
"""Longest silence on a stream that is open for the server's own news."""
_LEAVE_SECONDS = 2.0
"""How long a server may take to hear that its session ends: who closes it waits for that."""


@contextlib.asynccontextmanager
async def http_transport(spec: McpServerSpec) -> AsyncGenerator[Any]:
    """Speak with the address. Redirects are followed within its origin only, which is the SDK's rule."""
    headers = {name: value.reveal() for name, value in spec.headers.items()} | {"accept-encoding": "identity"}
    timeout = httpx2.Timeout(_CONNECT_SECONDS, read=max(_IDLE_SECONDS, spec.deadline))
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout, transport=_Bounded(), trust_env=False) as client,
        streamable_http_client(spec.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as streams,
    ):
        yield streams


class _Bounded(httpx2.AsyncHTTPTransport):
    """Counts what comes. A stream of events goes on for ever: there the SDK bounds each event."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "DELETE":
            return await self._counted(request)
        async with asyncio.timeout(_LEAVE_SECONDS):
            response = await self._counted(request)
            await response.aread()
        return response

    async def _counted(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        packed = response.headers.get("content-encoding", "identity").lower() != "identity"
        events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        if packed or not events:
            response.stream = _Counted(response.stream, 0 if packed else MAX_MESSAGE_BYTES)
        return response


UNREAD: Final = (
    f"it is larger than max_message_bytes={MAX_MESSAGE_BYTES}",
    "it is packed, which was not asked for",
)
"""Why an answer was not read: the server may well have done what it was asked."""


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, most: int) -> None:
        self._stream = stream
        self._most = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        came = 0
        async for chunk in self._stream:
            came += len(chunk)
            if came > self._most:
                raise httpx2.StreamError(UNREAD[0] if self._most else UNREAD[1])
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
