"""The tier `interpreter`: a subset of Python in an interpreter that has no files, no network and no processes."""

import asyncio
import contextlib
import json
import os
import resource
import sys
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Final

from kfm_server.ports.sandbox import (
    CodeFailed,
    Function,
    Grant,
    LimitReached,
    MiB,
    Outcome,
    SandboxRefused,
    Snippet,
    Tier,
)
from kfm_server.sandbox.reading import MAX_CALL, MAX_MEMORY, check, failure, text_of, value_of

if TYPE_CHECKING:
    from pydantic_monty import AsyncMonty, AsyncMontySession, MontyError

_BASE_MEMORY: Final = 256 * MiB
"""Address space of a worker before it runs anything, and room for what its own count of memory does not see."""


class InterpreterSandbox:
    """Sandbox. Each call has a fresh session in one of `size` worker processes, and so an empty interpreter.

    What it lacks of Python is said by CodeFailed: generators, `with` blocks of contextlib, most of the library. A file
    of a Function is read here, and cannot import its neighbours.
    """

    tier: Tier = "interpreter"

    def __init__(self, *, size: int = 4) -> None:
        """Nothing is started before the first call."""
        self._size = size
        self._pool: AsyncMonty | None = None
        self._opening = asyncio.Lock()
        self._feeds: set[asyncio.Future[Any]] = set()
        self._closed = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, *, size: int = 4) -> AsyncGenerator["InterpreterSandbox"]:
        """One that is closed at the end."""
        sandbox = cls(size=size)
        try:
            yield sandbox
        finally:
            await sandbox.close()

    async def run(
        self, code: Function | Snippet, arguments: Mapping[str, Any], grant: Grant | None = None
    ) -> Outcome:
        """As Sandbox has it."""
        grant = grant or Grant()
        request: dict[str, Any] = json.loads(check(code, arguments, grant))
        inputs: dict[str, Any] = request["arguments"]
        source = code.source if isinstance(code, Snippet) else _calling(code, inputs)
        return await self._feed(await self._workers(), source, inputs, grant)

    async def close(self) -> None:
        """As Sandbox has it."""
        self._closed = True
        for feed in tuple(self._feeds):
            feed.cancel()
        async with self._opening:
            pool, self._pool = self._pool, None
            if pool is not None:
                await pool.__aexit__(None, None, None)

    async def _workers(self) -> "AsyncMonty":
        async with self._opening:
            if self._closed:
                raise SandboxRefused("The sandbox is closed.")
            if self._pool is None:
                try:
                    from pydantic_monty import AsyncMonty

                    pool = AsyncMonty(min_processes=1, max_processes=self._size)
                    self._pool = await pool.__aenter__()
                except (ImportError, OSError) as error:
                    raise SandboxRefused(f"The interpreter cannot be started: {error}") from None
            return self._pool

    async def _feed(self, pool: "AsyncMonty", source: str, inputs: dict[str, Any], grant: Grant) -> Outcome:
        from pydantic_monty import CollectString, MontyConversionError, MontyCrashedError, MontyError

        printed = CollectString(grant.output_bytes)
        try:
            async with pool.checkout(
                limits={
                    "max_memory": grant.memory_bytes,
                    "max_feed_duration_secs": min(float(grant.cpu_seconds), grant.wall_seconds),
                    "max_recursion_depth": 500,
                },
                os_policy={"sleep": "zero"},  # nobody waits for code that waits
            ) as session:
                value = await self._value(session, source, inputs, printed, grant)
        except MontyCrashedError as error:
            limit = "wall_seconds" if error.timed_out else "memory_bytes"
            raise LimitReached(limit, grant, text_of(printed.output)) from None
        except MontyConversionError:
            raise CodeFailed("TypeError", "the result is no JSON value") from None
        except MontyError as error:
            raise _end(error, grant, printed.output) from None
        text = text_of(printed.output)
        return Outcome(_plain(value, grant, len(printed.output.encode()), text), text)

    async def _value(
        self, session: "AsyncMontySession", source: str, inputs: dict[str, Any], printed: Any, grant: Grant
    ) -> Any:
        worker = session.worker_pid
        assert worker is not None
        if sys.platform == "linux":
            most = (grant.memory_bytes + _BASE_MEMORY, MAX_MEMORY + _BASE_MEMORY)
            resource.prlimit(
                worker, resource.RLIMIT_AS, most
            )  # it counts its heap itself: this is the second count
            resource.prlimit(worker, resource.RLIMIT_CORE, (0, 0))
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (0, 0))
        if self._closed:
            raise SandboxRefused("The sandbox is closed.")
        feed = asyncio.ensure_future(session.feed_run(source, inputs=inputs, print_callback=printed))
        self._feeds.add(feed)
        try:
            return await feed
        except asyncio.CancelledError:
            await _gone(worker)  # the pool kills a worker whose call is cancelled
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise SandboxRefused("The sandbox ended during the call.") from None
            raise
        finally:
            self._feeds.discard(feed)


def _calling(code: Function, inputs: Mapping[str, Any]) -> str:
    try:
        if code.file.stat().st_size > MAX_CALL:
            raise SandboxRefused(f"{code.file.name} is larger than max_call={MAX_CALL} bytes.")
        source = code.file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SandboxRefused(f"{code.file.name} cannot be read: {type(error).__name__}.") from None
    return f"{source}\n{code.name}({', '.join(f'{name}={name}' for name in inputs)})\n"


async def _gone(pid: int) -> None:
    """Wait until a process has ended."""
    if sys.platform != "linux":
        return
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process, ended.set)
    try:
        async with asyncio.timeout(5):
            await ended.wait()
    finally:
        loop.remove_reader(process)
        os.close(process)


def _end(error: "MontyError", grant: Grant, printed: str) -> Exception:
    """How the interpreter's error is told. Its limits are exceptions of Python that nothing but it raises so."""
    raised = error.exception()
    text = str(raised)
    if isinstance(raised, TimeoutError) and "limit exceeded" in text:
        return LimitReached(
            "cpu_seconds" if grant.cpu_seconds <= grant.wall_seconds else "wall_seconds",
            grant,
            text_of(printed),
        )
    if isinstance(raised, MemoryError):
        full = f"> {grant.output_bytes} bytes" in text
        return LimitReached("output_bytes" if full else "memory_bytes", grant, text_of(printed))
    if isinstance(raised, SyntaxError):
        text = raised.msg or text
    frames = getattr(error, "traceback", list)()
    return failure(type(raised).__name__, text, frames[-1].line if frames else 0)


def _plain(value: Any, grant: Grant, printed: int, text: str) -> Any:
    """The value as JSON has it. Counted before it is written: what is shared many times is small only in memory."""
    left = grant.output_bytes - printed
    try:
        if _least(value, left) > left or len(written := json.dumps(value, allow_nan=False)) > left:
            raise LimitReached("output_bytes", grant, text)
    except (TypeError, ValueError, RecursionError) as error:
        raise CodeFailed(type(error).__name__, f"the result is no JSON value: {error}") from None
    return value_of(written.encode())


def _least(value: Any, enough: int) -> int:
    """A lower bound of the value's length as JSON; it stops counting beyond `enough`."""
    size, stack = 0, [value]
    while stack and size <= enough:
        item = stack.pop()
        size += (
            2 if isinstance(item, list | tuple | dict) else max(1, len(item)) if isinstance(item, str) else 1
        )
        if isinstance(item, list | tuple | dict):
            size += len(item)
            if size > enough:
                break
            stack.extend(item.values() if isinstance(item, dict) else item)
    return size
