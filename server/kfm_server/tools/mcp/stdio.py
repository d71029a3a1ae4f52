"""MCP over the standard streams of a child: as the SDK's transport, but a message has a bound, and so has what it logs."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import structlog
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from kfm_server.ports.mcp_settings import McpServerSpec
from kfm_server.tools.mcp.limits import MAX_MESSAGE_BYTES, TOO_LARGE
from kfm_server.tools.mcp.stderr import Stderr

log = structlog.get_logger(__name__)
_STOP_SECONDS = 1.0
"""How long a child may take to end once its input is closed, and once more after SIGTERM."""
_LAST_WORDS_SECONDS = 1.0
"""How long the end of its output waits for that of its standard error, which says why."""


class NotStarted(Exception):
    """The program cannot be started; the message names it and says why."""


@contextlib.asynccontextmanager
async def stdio_transport(
    spec: McpServerSpec, closed: Callable[[str], None], stderr: Stderr
) -> AsyncGenerator[Any]:
    """Start the program and speak with it; leaving ends it and what it started. `closed` is told why the stream ended,
    once `stderr` has what the program said last, if that ends, too.

    Raises NotStarted.
    """
    child = await _start(spec)
    come, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, go = anyio.create_memory_object_stream[SessionMessage](0)
    silent = asyncio.Event()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read, child, come, closed, silent)
            tasks.start_soon(_write, child, go)
            tasks.start_soon(_log, child, spec.name, stderr, silent)
            try:
                yield read, write
            finally:
                tasks.cancel_scope.cancel()
    finally:
        for stream in (come, read, write, go):
            stream.close()
        await _stop(child)


async def _start(spec: McpServerSpec) -> Any:
    try:
        return await asyncio.create_subprocess_exec(
            spec.command,
            *spec.args,
            env=get_default_environment() | {name: value.reveal() for name, value in spec.env.items()},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_MESSAGE_BYTES,
            start_new_session=True,
        )
    except FileNotFoundError:  # not every event loop says which file
        raise NotStarted(f"there is no program {spec.command}") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NotStarted(f"the program {spec.command} cannot be started: {why}") from None


async def _read(child: Any, come: Any, closed: Callable[[str], None], silent: asyncio.Event) -> None:
    why = "its output ended"
    async with come:
        try:
            while line := await child.stdout.readline():
                try:
                    message: Any = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
                except ValueError as error:
                    message = error
                await come.send(message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await silent.wait()
        except ValueError:  # what readline says of a line beyond its limit
            why = TOO_LARGE
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            pass
        closed(why)


async def _write(child: Any, go: Any) -> None:
    async with go:
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            async for sent in go:
                line = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                child.stdin.write(line.encode() + b"\n")
                await child.stdin.drain()


async def _log(child: Any, name: str, stderr: Stderr, silent: asyncio.Event) -> None:
    while True:
        try:
            line = await child.stderr.readline()
        except ValueError:
            continue  # a line beyond the limit is dropped
        if not line:
            silent.set()
            return
        log.debug("mcp_server_said", server=name, said=stderr.add(line))


async def _stop(child: Any) -> None:
    """Close its input, then SIGTERM, then SIGKILL, to its whole group. Bounded, and not cut short by a cancellation."""
    with anyio.CancelScope(shield=True):
        with contextlib.suppress(OSError, RuntimeError):
            child.stdin.close()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await child.wait()
                break
            _signal(child, sign)
        _signal(child, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await child.wait()


def _signal(child: Any, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, sign)
