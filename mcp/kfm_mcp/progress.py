"""Progress while a call waits, for a client that asked for it: at step changes, and every 20 s that all is well."""

import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from xenocomm._gen.errors import XenocommError
from xenocomm._gen.types import StepEvent, StepResultEvent

from kfm_mcp.gateway import Gateway

HEARTBEAT_S = 20.0
_LEAST_S = 0.25
"""Seconds between two: a turn of a thousand quick steps is told of in a few."""


class _Teller:
    def __init__(self) -> None:
        self.said = ""
        self.changed = anyio.Event()

    def say(self, words: str) -> None:
        self.said = words
        self.changed.set()


@contextlib.asynccontextmanager
async def told(
    context: ServerRequestContext[Any, Any], gateway: Gateway, turn_id: str
) -> AsyncGenerator[None]:
    """Tell of the turn's steps within; nothing if the caller did not ask for progress. What fails within comes out as it is."""
    meta = context.meta or {}
    if meta.get("progress_token") is None:
        yield
        return
    teller = _Teller()
    failed: XenocommError | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(_watch, gateway, turn_id, teller)
        group.start_soon(_tell, context, teller)
        try:
            yield
        except XenocommError as error:
            failed = error  # the group would wrap it
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed


async def _watch(gateway: Gateway, turn_id: str, teller: _Teller) -> None:
    with contextlib.suppress(XenocommError):  # the wait itself tells what is wrong
        async with aclosing(gateway.turn(turn_id).updates()) as updates:
            async for update in updates:
                event = update.event.event if update.event else None
                match event:
                    case StepEvent():
                        teller.say(f"step {event.step_key} started")
                    case StepResultEvent():
                        teller.say(
                            f"step {event.step_key} {getattr(event.status, 'name', event.status)}".lower()
                        )
                    case _:
                        pass


async def _tell(context: ServerRequestContext[Any, Any], teller: _Teller) -> None:
    began = time.monotonic()
    while True:
        with anyio.move_on_after(HEARTBEAT_S):
            await teller.changed.wait()
        teller.changed = anyio.Event()
        seconds = round(time.monotonic() - began, 3)
        await context.session.report_progress(seconds, message=teller.said or "it runs")
        await anyio.sleep(_LEAST_S)
