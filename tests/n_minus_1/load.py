"""A client of either release that runs one turn after the other until a file is there, and says how many as JSON.

    python load.py HOST:PORT NAME FILE

It is run by the interpreter of one release. Whatever the SDK raises ends it: its caller sees the exit code.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from scenario import plan, tool, word  # it lies beside this file
from xenocomm import Client

SECONDS = 60.0
WORKERS = 3


async def worker(kfm: Client, name: str, stop: Path) -> list[str]:
    """Its turns."""
    done: list[str] = []
    while not stop.exists():  # noqa: ASYNC240 (a look at a file of this machine)
        steps: list[dict[str, Any]] = [tool("s1", "ledger_idempotent"), tool("s2", "ledger_once", "s1")]
        handle = await kfm.turns.start(plan(*steps), idempotency_key=f"{name}-{len(done)}")
        seen = [event.sequence async for event in handle.events(timeout=SECONDS)]
        assert seen == list(range(1, len(seen) + 1)), seen
        turn = await handle.result(timeout=SECONDS)
        assert [word(step.state) for step in turn.steps] == ["SUCCEEDED"] * 2, turn
        done.append(handle.id)
    return done


async def main(endpoint: str, name: str, stop: str) -> list[str]:
    """The turns of all workers."""
    async with Client(endpoint, timeout=SECONDS) as kfm, asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker(kfm, f"{name}-{n}", Path(stop))) for n in range(WORKERS)]
    return [turn for task in tasks for turn in task.result()]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
