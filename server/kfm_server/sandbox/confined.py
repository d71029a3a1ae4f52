"""One confined process, as the server sees it: started, called, ended."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast, get_args

from kfm_server.ports.sandbox import CodeFailed, Grant, Limit, LimitReached, Outcome, SandboxRefused
from kfm_server.sandbox.reading import MAX_OUTPUT, failure, text_of, value_of

START_SECONDS: Final = 20.0
"""Longest start of a process."""
GRACE_SECONDS: Final = 5.0
"""How long after its wall_seconds a call may say that it ended, and how long an end may take, before it is killed."""
_BOOT: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from kfm_server.sandbox.inside import zygote; "
    "del sys.path[0]; zygote.main(sys.argv[2:])"
)
_PLACE: Final = str(Path(__file__).resolve().parents[2])
_LIMITS: Final[tuple[Limit, ...]] = get_args(Limit)


class Confined:
    """A process that runs one call after the other, each in a child of its own."""

    def __init__(self, process: Process) -> None:
        """Of a process that is ready; `start` makes one."""
        self._process = process

    @classmethod
    async def start(cls, read_only: tuple[Path, ...]) -> "Confined":
        """A process that sees these directories. Raises SandboxRefused where the host cannot confine one."""
        if sys.platform != "linux":
            raise SandboxRefused(f"{sys.platform} has no walls for processes: Linux has.")
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, _PLACE, *map(str, read_only)),
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={}, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise SandboxRefused(f"The process cannot be started: {error.strerror}.") from None
        confined = cls(process)
        try:
            async with asyncio.timeout(START_SECONDS):
                hello: dict[str, Any] = json.loads(await confined._frame(64 * 1024))
            if "ready" in hello:
                return confined
            reason = str(hello.get("refused"))
        except (asyncio.IncompleteReadError, ValueError):
            reason = "the process ended before it was ready."
        except TimeoutError:
            reason = f"the process was not ready after {START_SECONDS:g} seconds."
        except BaseException:
            await confined.end()
            raise
        await confined.end()
        raise SandboxRefused(reason)

    @property
    def alive(self) -> bool:
        """Whether it can take a call."""
        return self._process.returncode is None

    async def call(self, request: bytes, grant: Grant) -> Outcome:
        """Run one call: `request` is what `check` made. Raises CodeFailed, LimitReached, and SandboxRefused if it ended.

        The process has to be ended if this is left by anything else.
        """
        limits: dict[str, Any] = dataclasses.asdict(grant)
        limits["path"] = [str(directory) for directory in limits.pop("read_only")]
        frames = (json.dumps(limits).encode(), request)
        writer = self._process.stdin
        assert writer is not None
        try:
            async with asyncio.timeout(grant.wall_seconds + GRACE_SECONDS):
                writer.writelines(len(frame).to_bytes(4, "big") + frame for frame in frames)
                await writer.drain()
                end: dict[str, Any] = json.loads(await self._frame(64 * 1024))
                told, printed = await self._frame(2 * MAX_OUTPUT), await self._frame(2 * MAX_OUTPUT)
        except TimeoutError:
            await self.end()
            raise LimitReached("wall_seconds", grant) from None
        except (asyncio.IncompleteReadError, OSError, ValueError):
            await self.end()
            raise SandboxRefused("The sandbox ended during the call.") from None
        return _outcome(end, told, printed, grant)

    async def end(self) -> None:
        """End it with everything in it; returns once all of it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def _frame(self, most: int) -> bytes:
        reader = self._process.stdout
        assert reader is not None
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > most:
            raise ValueError(f"a frame of {length} bytes")
        return await reader.readexactly(length)


def _outcome(end: Mapping[str, Any], told: bytes, printed: bytes, grant: Grant) -> Outcome:
    text = text_of(printed)
    limit = end["limit"] or (told[1:].decode("ascii", "replace") if told[:1] == b"L" else "")
    if limit in _LIMITS:
        raise LimitReached(limit, grant, text)
    if told[:1] == b"V":
        return Outcome(value_of(told[1:]), text)
    if told[:1] == b"E":
        error = value_of(told[1:])
        if isinstance(error, dict):
            said = cast("dict[str, Any]", error)
            raise failure(said.get("kind"), said.get("text"), said.get("line"))
    raise CodeFailed("SystemExit", f"it ended by itself, with status {end['code']}, and left no result")
