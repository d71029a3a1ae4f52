"""The closed loop inside every client process. Standard library only: it runs in the peers' environments too.

A client calls `obey(one)`: it says that it is ready, then takes commands from stdin, one JSON object
a line, and answers on stdout with lines that begin with `{"bench":`. What else a peer prints is ignored.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

One = Callable[[int], Awaitable[None]]
"""One whole operation of caller number n; it raises if the answer is wrong."""


def say(kind: str, **fields: Any) -> None:
    """Tell the runner something."""
    sys.stdout.write(json.dumps({"bench": kind, **fields}) + "\n")
    sys.stdout.flush()


def percentile(values: list[float], percent: float) -> float:
    """The value below which `percent` of the values lie; nan of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))] if ordered else float("nan")


async def window(one: One, conc: int, warm: float, seconds: float, limit: float) -> None:
    """Keep `conc` callers busy, count what completes inside the window, then let the rest drain.

    A window in which less than max(20, conc) operations completed goes on, up to `limit` seconds.
    """
    taken: list[float] = []
    counting, over, enough = False, False, asyncio.Event()

    async def caller(number: int) -> None:
        while not over:
            begun = time.perf_counter()
            await one(number)
            if counting:
                taken.append(time.perf_counter() - begun)
                if len(taken) >= max(20, conc):
                    enough.set()

    async with asyncio.TaskGroup() as group:
        for number in range(conc):
            group.create_task(caller(number))
        await asyncio.sleep(warm)
        counting, begin = True, time.perf_counter()
        say("begin")
        await asyncio.sleep(seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, limit - seconds)):
                await enough.wait()
        counting, over, elapsed = False, True, time.perf_counter() - begin
        say(
            "end",
            ops=len(taken),
            elapsed=elapsed,
            p50_ms=percentile(taken, 50) * 1e3,
            p99_ms=percentile(taken, 99) * 1e3,
        )
    say("idle")


async def count(one: One, conc: int, total: int) -> None:
    """Run exactly `total` operations, `conc` at a time."""
    left = total

    async def caller(number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one(number)

    async with asyncio.TaskGroup() as group:
        for number in range(conc):
            group.create_task(caller(number))
    say("idle")


async def obey(one: One) -> None:
    """Say ready, then carry out commands until stdin closes.

    Commands: {"do": "window", "conc", "warm", "seconds", "limit"} and {"do": "count", "conc", "total"}.
    """
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    for number in range(3):
        await one(number)
    say("ready")
    while line := await reader.readline():
        command = json.loads(line)
        what = command.pop("do")
        await (window if what == "window" else count)(one, **command)
