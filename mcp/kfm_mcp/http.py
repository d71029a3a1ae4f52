"""`/mcp`: the bridge over streamable HTTP, both eras of the protocol at one address."""

import contextlib
from collections.abc import AsyncGenerator

import uvicorn
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kfm_mcp.bridge import Bridge
from kfm_mcp.server import Extra, build_server

MAX_SESSIONS = 1_000
"""Sessions of the older era at once; more are refused with 503 until some end."""
SESSION_IDLE_S = 1_800.0
"""Seconds after which a session that nobody uses is forgotten; its client makes another."""
MAX_BODY_BYTES = 4 * 1024 * 1024
"""Bytes of one request; a larger one is refused with 413."""
_LOCAL = ("127.0.0.1", "localhost", "[::1]")


class McpEndpoint:
    """An ASGI application; it serves inside `running`."""

    def __init__(self, bridge: Bridge, *, host: str, extra: Extra | None = None) -> None:
        """`host` is the address of this machine alone where it listens: then the Host and Origin of a request must be of
        this machine, so that a page of another site, which DNS led here, cannot call it. If it is empty, others can
        reach this: they need the token, which no such page has.
        """
        self._bridge = bridge
        hosts = [*_LOCAL, f"[{host}]" if ":" in host else host]
        security = TransportSecuritySettings(
            enable_dns_rebinding_protection=bool(host),
            allowed_hosts=[name for known in hosts for name in (known, f"{known}:*")],
            allowed_origins=[
                name
                for known in hosts
                for scheme in ("http", "https")
                for name in (f"{scheme}://{known}", f"{scheme}://{known}:*")
            ],
        )
        self._manager = StreamableHTTPSessionManager(
            build_server(bridge, extra),
            security_settings=security,
            session_idle_timeout=SESSION_IDLE_S,
            max_request_body_size=MAX_BODY_BYTES,
            max_sessions=MAX_SESSIONS,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Serve within, once; leaving it ends the sessions and closes the connection to the server."""
        try:
            async with self._manager.run():
                yield
        finally:
            await self._bridge.gateway.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._manager.handle_request(scope, receive, send)


async def serve(bridge: Bridge, host: str, port: int, extra: Extra | None = None) -> None:
    """Serve `/mcp` alone at a loopback address until the process is told to stop."""
    endpoint = McpEndpoint(bridge, host=host, extra=extra)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with endpoint.running():
            yield

    app = Starlette(routes=[Route("/mcp", endpoint)], lifespan=lifespan)
    settings = uvicorn.Config(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    await uvicorn.Server(settings).serve()
