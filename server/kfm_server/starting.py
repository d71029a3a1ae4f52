"""A server as a process of its own: its loop, its signals, its exit code, and why it did not start."""

import asyncio
import signal
from collections.abc import Callable, Sequence

import structlog
import uvloop

from kfm_server import failpoints, logs
from kfm_server.app import EXPECTED, WRONG_SETTINGS, serve
from kfm_server.endpoints import Endpoints
from kfm_server.settings import Config

log = structlog.get_logger(__name__)
_READY = failpoints.declare("process.ready")


class StartFailed(Exception):
    """The server could not start; the text says why in one line. `exit_code` is 2 when a setting has to change."""

    def __init__(self, causes: Sequence[BaseException]) -> None:
        texts = dict.fromkeys(" ".join(f"{error}".split()) or type(error).__name__ for error in causes)
        super().__init__("; ".join(texts))
        self.exit_code = 2 if all(isinstance(error, WRONG_SETTINGS) for error in causes) else 1


def run(config: Config, on_ready: Callable[[Endpoints], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; answers the exit code. Raises StartFailed if it does not come to serve."""
    logs.configure(config.settings.log_level)
    logs.hide(config.settings.secrets)
    ready = False

    def tell(endpoints: Endpoints) -> None:
        nonlocal ready
        ready = True
        if on_ready is not None:
            on_ready(endpoints)

    try:
        return uvloop.run(_main(config, tell))
    except Exception as error:
        if ready:
            raise
        causes = _leaves(error)
        if not all(isinstance(cause, EXPECTED) for cause in causes):
            log.critical("start_failed", exc_info=error)
        raise StartFailed(causes) from None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group: BaseExceptionGroup[BaseException] = error
        return [leaf for inner in group.exceptions for leaf in _leaves(inner)]
    return [error]


async def _main(config: Config, on_ready: Callable[[Endpoints], None]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, config.asked.set)
    async with serve(config) as endpoints:
        failpoints.hit(_READY)
        on_ready(endpoints)
        await stop.wait()
    return 0
