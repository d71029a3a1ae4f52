"""Following a turn across disconnects: every sequence once, in order."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from xenocomm._gen.errors import DeadlineExceeded, Unavailable, XenocommError
from xenocomm._gen.types import TurnChange, TurnState, TurnStateEvent, TurnUpdate
from xenocomm.arguments import seconds
from xenocomm.reconnecting import Reconnecting
from xenocomm.transport import Stream, Transport


class Follower:
    """Reads a turn's updates; comes back by sequence after a Reconnect or a lost connection."""

    def __init__(
        self,
        transport: Transport,
        turn_id: str,
        *,
        after: int = 0,
        timeout: float | None = None,
        opened: Stream | None = None,
        first: Any = None,
    ) -> None:
        """`timeout` bounds the whole in seconds; `opened` and `first` are a stream already open and what was read from it."""
        self._transport = transport
        self._turn_id = turn_id
        self._ends = None if timeout is None else time.monotonic() + seconds("timeout", timeout)
        self._opened = opened
        self._first = first
        self._line = transport.connection.line()
        self._epoch = 0
        self.last = after

    async def updates(self) -> AsyncGenerator[TurnUpdate, None]:
        """Events, deltas and gaps until the turn's last event. DeadlineExceeded when the time is up.

        Unavailable when for two minutes no server could be reached, or all only asked to come back; or, before any was
        reached, for a few attempts.
        """
        reconnecting = Reconnecting(self._transport)
        while True:
            failure: XenocommError = Unavailable("the server keeps asking to reconnect")
            reconnecting.opening()
            try:
                async with aclosing(self._one_stream()) as updates:
                    async for update in updates:
                        if update.reconnect is not None:
                            break
                        reconnecting.heard()
                        yield update
                        if _is_last(update):
                            return
                    else:
                        if await self._ended():
                            return
            except XenocommError as error:
                failure = error
            pause = reconnecting.pause_s(self._line, failure)
            if self._ends is not None and time.monotonic() + pause >= self._ends:
                raise self._late() from failure
            await asyncio.sleep(pause)

    async def _ended(self) -> bool:
        """Whether nothing follows: a stream that ends well without the last event was asked for from beyond it."""
        answer = await self._transport.call("TurnService.GetTurn", {"turn_id": self._turn_id})
        return answer.turn.state == TurnState.FINISHED and answer.turn.last_sequence <= self.last

    async def _one_stream(self) -> AsyncGenerator[TurnUpdate, None]:
        stream, self._opened = self._opened, None
        if stream is None:
            stream = self._transport.stream(
                "TurnService.WatchTurn", {"turn_id": self._turn_id, "after_sequence": self.last}
            )
        self._line = stream.line
        first, self._first = self._first, None
        try:
            if first is not None:
                for update in self._fresh(first):
                    yield update
            while True:
                # Bounds only the wait for the next response, not what the reader does with it.
                scope = asyncio.timeout(self._left())
                try:
                    async with scope:
                        response = await stream.read()
                except TimeoutError:
                    if scope.expired():
                        raise self._late() from None
                    raise
                if response is None:
                    return
                for update in self._fresh(response):
                    yield update
        finally:
            stream.cancel()

    def _fresh(self, response: Any) -> list[TurnUpdate]:
        found: list[TurnUpdate] = []
        for message in response.updates:
            kind = message.WhichOneof("update")
            if kind == "event":
                sequence = message.event.sequence
                if sequence <= self.last:
                    continue
                if sequence != self.last + 1:
                    raise Unavailable(f"sequence {sequence} came after {self.last}")
                self.last = sequence
                update = TurnUpdate.from_pb(message)
                self._epoch = max(self._epoch, update.epoch)
                found.append(update)
                continue
            if kind in ("delta", "gap"):
                # An owner that was superseded may still be talking.
                if message.epoch < self._epoch:
                    continue
                self._epoch = message.epoch
            found.append(TurnUpdate.from_pb(message))
        return found

    def _left(self) -> float | None:
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"turn {self._turn_id} had not ended in time; it goes on")


def _is_last(update: TurnUpdate) -> bool:
    event = update.event.event if update.event is not None else None
    return isinstance(event, TurnStateEvent) and event.change == TurnChange.FINISHED
