"""The HTTP door: liveness, readiness, metrics, and `/mcp`."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kfm_server.doors.binding import check_bind, join_address, split_address, token_matches
from kfm_server.doors.http.facts import WithFacts
from kfm_server.doors.http.mcp import McpMount
from kfm_server.doors.http.problems import problem
from kfm_server.ports.sandbox import Confinement

Look = Callable[[], Awaitable[Sequence[Confinement]]]
_MAX_CONNECTIONS = 256
_MAX_HEADER_BYTES = 16 * 1024


def build_app(
    parts: Callable[[], Mapping[str, bool]],
    token: str = "",
    mcp: McpMount | None = None,
    roles: Sequence[str] = (),
    sandboxes: Look | None = None,
) -> Starlette:
    """The routes. `parts` tells which parts serve; the one with the empty name is the whole. `roles`: what this process
    does; `sandboxes`: what its host can confine, which is looked at when it is first asked for."""

    async def live(request: Request) -> Response:
        del request
        return JSONResponse({"status": "live"})

    async def ready(request: Request) -> Response:
        del request
        known = parts()
        serving = known.get("", False)
        named = {name: ok for name, ok in known.items() if name}
        body = {"status": "ready" if serving else "not ready", "roles": list(roles), "parts": named}
        return JSONResponse(body, status_code=200 if serving else 503)

    async def confined(request: Request) -> Response:
        del request
        found = () if sandboxes is None else await sandboxes()
        return JSONResponse({seen.tier: {"able": seen.able, "reason": seen.reason} for seen in found})

    async def metrics(request: Request) -> Response:
        if token and not token_matches(request.headers.get("authorization", ""), token):
            return problem(
                401, "REASON_UNAUTHENTICATED", "A valid token is required.", {"WWW-Authenticate": "Bearer"}
            )
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    async def missing(request: Request, error: Exception) -> Response:
        del request, error
        return problem(404, "REASON_UNIMPLEMENTED", "There is nothing here.", {})

    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/health/sandbox", confined),
            Route("/metrics", metrics),
            *([Route("/mcp", mcp)] if mcp is not None else []),
        ],
        exception_handlers={404: missing},
    )


class HttpDoor:
    """One listening HTTP server in this event loop; `start` and `stop` once each."""

    def __init__(
        self,
        *,
        address: str,
        parts: Callable[[], Mapping[str, bool]],
        grpc: Callable[[], str] | None = None,
        token: str = "",
        mcp_groups: tuple[str, ...] = (),
        roles: Sequence[str] = (),
        sandboxes: Look | None = None,
    ) -> None:
        """`grpc` answers where this server's gRPC door listens; without it there is no `/mcp`, which offers the tools of
        `mcp_groups` beside the default ones. BindRefused beyond loopback without a token."""
        check_bind(address, token)
        self._mcp = (
            None if grpc is None else McpMount(address=address, grpc=grpc, token=token, groups=mcp_groups)
        )
        self._address = address
        self._server = _Server(
            uvicorn.Config(
                WithFacts(build_app(parts, token, self._mcp, roles, sandboxes)),
                log_config=None,
                access_log=False,
                lifespan="off",
                limit_concurrency=_MAX_CONNECTIONS,
                h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=2,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen, and return the address that was bound. OSError if it is taken."""
        host, port = split_address(self._address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(_MAX_CONNECTIONS)
        except OSError as error:
            sock.close()
            raise OSError(f"HTTP cannot listen on {self._address}: {error.strerror}") from error
        sock.setblocking(False)
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]), name="http-door")
        return join_address(host, sock.getsockname()[1])

    async def stop(self) -> None:
        """Finish what is being answered, then close; at most about two seconds."""
        if self._task is not None:
            self._server.should_exit = True
            if self._mcp is not None:
                await self._mcp.stop()
            await self._task


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals alone: the order in which doors close is the program's business."""
        yield
