"""A whole server in this process, on the background loop of the blocking facade."""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from xenocomm.client import Client
from xenocomm.sync import BackgroundLoop, SyncClient, acquire, release

_PATIENCE_S = 10.0
_LOOK_S = 0.005
_DEMO = "demo"
_MODEL = """
[models.scripted]
provider = "scripted"
model = "scripted"
script = {script}

[personalities.scripted]
planner = {planner}
models = ["scripted"]
"""


class ServerClock:
    """The server's time, as turns, steps and their timers see it. It runs on by itself, and is moved on besides."""

    def __init__(self, clock: Any, loop: BackgroundLoop) -> None:
        """Made by `server`."""
        self._clock = clock
        self._loop = loop

    def now(self) -> datetime:
        """Its time, in UTC."""
        return datetime.fromtimestamp(self._clock.now_us() / 1_000_000, UTC)

    def advance(self, by: float | timedelta) -> None:
        """Move on by seconds or a timedelta. When this returns, what became due by it, such as timeouts and further attempts,
        has been decided and recorded, or 10 s have passed.

        An attempt that runs already is not cut short by it, unless its turn ends. ValueError for less than 0.
        """
        self._loop.run(self._move(by.total_seconds() if isinstance(by, timedelta) else by))

    def jump(self) -> timedelta:
        """Advance to the next timer, whatever it is, and say how far that was. TimeoutError if none is set within 10 s."""

        async def move() -> float:
            async with asyncio.timeout(_PATIENCE_S):
                while (due := self._clock.next_us()) is None:  # noqa: ASYNC110 (a clock tells nobody of its timers)
                    await asyncio.sleep(_LOOK_S)
            seconds = max(0.0, (due - self._clock.now_us()) / 1_000_000)
            await self._move(seconds)
            return seconds

        return timedelta(seconds=self._loop.run(move()))

    async def _move(self, seconds: float) -> None:
        self._clock.advance(seconds)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while self._is_deciding():  # noqa: ASYNC110 (sessions tell nobody when they rest)
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            pass

    def _is_deciding(self) -> bool:
        """A timer is due, or a session's loop, which rests when it has nothing to decide, is at work."""
        due = self._clock.next_us()
        if due is not None and due <= self._clock.now_us():
            return True
        return any(task.get_name().startswith("session ") for task in asyncio.all_tasks())


class ServerInProcess:
    """A running server. `endpoint` is its gRPC door, `http` its HTTP door, `home` holds its state."""

    def __init__(self, endpoint: str, http: str, home: Path, clock: ServerClock, token: str) -> None:
        """Made by `server`."""
        self.endpoint = endpoint
        self.http = http
        self.home = home
        self.clock = clock
        self._token = token

    def client(self, **options: Any) -> Client:
        """A client of it, for `async with`. Options as for Client."""
        return Client(self.endpoint, self._token, **options)

    def sync_client(self, **options: Any) -> SyncClient:
        """A blocking client of it, for `with`. Options as for Client."""
        return SyncClient(self.endpoint, self._token, **options)


@contextmanager
def server(
    *,
    script: Mapping[str, Any] | Path | str | None = None,
    planner: str = "react",
    config: str = "",
    tools: str = "",
    token: str = "",
    database_url: str = "",
    log_level: str = "error",
) -> Generator[ServerInProcess]:
    """A real server in this process, on free ports of loopback; it ends, and its data is removed, when this is left.

    `script`: what the model says, as JSON, the file of it (kfm_server/providers/scripts.py tells its form) or `demo`, the
    built-in one; then the personality `scripted`, with the planner that is named, is what a turn gets. `config`: more of config.toml. `tools`:
    `module:ATTRIBUTE`. `database_url`: an empty Postgres to use in place of an embedded one, which takes about two seconds
    to make. Nothing of the environment is read. Logs go to stderr. A server that fails for good ends the process.
    """
    home = Path(tempfile.mkdtemp(prefix="kfm-testing-"))
    home.chmod(0o755)  # Postgres runs as another user when we are root
    loop = acquire()
    try:
        settings = {
            "home": str(home),
            "grpc_address": "127.0.0.1:0",
            "http_address": "127.0.0.1:0",
            "drain_seconds": "2",
            "tools": tools or None,
            "token": token or None,
            "database_url": database_url or None,
            "default_personality": None if script is None else "scripted",
        }
        _configure(home, script, planner, config)
        running = _Running(settings, log_level)
        endpoint, http = loop.run(running.start())
        try:
            yield ServerInProcess(endpoint, http, home, ServerClock(running.clock, loop), token)
        finally:
            loop.run(running.stop())
    finally:
        release(loop)
        shutil.rmtree(home, ignore_errors=True)


class _Running:
    """The server's context, entered and left by one task of the background loop."""

    def __init__(self, settings: Mapping[str, object], log_level: str) -> None:
        import structlog
        from kfm_server.app import serve
        from kfm_server.clock import VirtualClock
        from kfm_server.settings import Config

        if not structlog.is_configured():
            structlog.configure(
                wrapper_class=structlog.make_filtering_bound_logger(log_level),
                # The standard error of the moment: a test framework changes it, and closes those that it made.
                logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
            )
        self.clock = VirtualClock()
        self._serve = serve(Config.load(settings, environment={}), self.clock)
        self._ends: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> tuple[str, str]:
        """Start it; answers where its doors listen."""
        ready: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._ends = asyncio.Event()
        self._task = asyncio.create_task(self._run(ready, self._ends))
        await asyncio.wait([ready, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._task
        return ready.result()

    async def stop(self) -> None:
        """Drain and end it."""
        assert self._ends is not None and self._task is not None
        self._ends.set()
        await self._task

    async def _run(self, ready: "asyncio.Future[tuple[str, str]]", ends: asyncio.Event) -> None:
        async with self._serve as endpoints:
            ready.set_result((endpoints.grpc, endpoints.http))
            await ends.wait()


def _configure(home: Path, script: Mapping[str, Any] | Path | str | None, planner: str, config: str) -> None:
    text = config
    if script is not None:
        path = Path(script) if isinstance(script, Path | str) else home / "script.json"
        if isinstance(script, Mapping):
            path.write_text(json.dumps(script))
        name = _DEMO if script == _DEMO else str(path.resolve())
        text += _MODEL.format(script=json.dumps(name), planner=json.dumps(planner))
    if text:
        (home / "config.toml").write_text(text)
