"""The tasks of the process, all of them in one group: none is detached."""

import asyncio
import contextlib
import contextvars
import os
import sys
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Tasks:
    """The tasks of the process. One that fails ends the process: a half-dead server is worse."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run it as a task of the process."""
        # Without the context of the call that happens to start it: its trace is not this task's.
        return self._tasks.create_task(work, name=name, context=contextvars.Context())

    def fail(self, error: BaseException) -> None:
        """A part that everything needs has died: say so and end at once; the journal has the truth."""
        log.critical("process_failed", error=repr(error))
        sys.stderr.flush()
        os._exit(70)


@contextlib.asynccontextmanager
async def task_group() -> AsyncGenerator[Tasks]:
    """The tasks of a process; leaving it waits for all of them."""
    async with asyncio.TaskGroup() as tasks:
        yield Tasks(tasks)
