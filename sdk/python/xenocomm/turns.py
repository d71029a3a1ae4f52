"""`kfm.turns`: starting turns and finding them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

from xenocomm import arguments
from xenocomm._gen.errors import DeadlineExceeded, Unavailable, XenocommError
from xenocomm._gen.pool import pb
from xenocomm._gen.types import BusyMode, Envelope, Limits, Turn, TurnState
from xenocomm.arguments import Input
from xenocomm.failures import TRANSIENT
from xenocomm.handle import TurnHandle, new_key
from xenocomm.transport import Stream, Transport, pause_s


class Turns:
    """Turns of one server."""

    def __init__(self, transport: Transport) -> None:
        """Made by Client."""
        self._transport = transport

    async def start(
        self,
        message: Input,
        *,
        session_id: str = "",
        personality: str = "",
        on_busy: BusyMode | str = BusyMode.UNSPECIFIED,
        timeout: float | timedelta | None = None,
        limits: Limits | Mapping[str, int] | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str = "",
        watch: bool = False,
    ) -> TurnHandle:
        """Hand a message in; the turn is durable when this returns. SessionBusy, InvalidArgument, IdempotencyConflict.

        `message` is text, a Part, JSON data such as `{"plan": ...}`, or a list of these. `timeout` (seconds) ends the turn itself. With `watch` the same call also opens the stream that the handle's
        first reader takes over, which saves a round trip to a caller that reads at once.
        """
        spec = {
            "session_id": session_id,
            "personality": personality,
            "input": arguments.parts(message),
            "on_busy": arguments.member("on_busy", BusyMode, on_busy),
            "timeout": _duration(timeout),
            "limits": None if limits is None else arguments.limits(limits),
            "labels": arguments.labels(labels or {}),
        }
        fields = {
            "turn": arguments.build(pb("kfm.turn.v1.TurnSpec"), spec),
            "idempotency_key": idempotency_key or new_key(),
        }
        if watch:
            return await self._open(fields)
        answer = await self._transport.call("TurnService.SubmitTurn", fields)
        return TurnHandle(self._transport, answer.turn_id, answer.session_id)

    async def run(self, message: Input, *, wait: float | None = None, check: bool = True, **how: Any) -> Turn:
        """Start a turn and wait, for `wait` seconds if given, for its end. `how` as for `start`, failures as for `result`."""
        handle = await self.start(message, **how)
        return await handle.result(timeout=wait, check=check)

    def attach(self, turn_id: str) -> TurnHandle:
        """A handle for a turn that exists; asks the server nothing."""
        return TurnHandle(self._transport, turn_id)

    async def get(self, turn_id: str) -> Turn:
        """The turn as it is now. TurnNotFound."""
        return await self.attach(turn_id).get()

    async def page(
        self,
        *,
        session_id: str = "",
        state: TurnState | str = TurnState.UNSPECIFIED,
        page_size: int = 50,
        page_token: str = "",
    ) -> tuple[list[Turn], str]:
        """One page of turns without their steps, newest first, and the token of the next; empty at the end."""
        fields = {
            "session_id": session_id,
            "state": arguments.member("state", TurnState, state),
            "page_size": page_size,
            "page_token": page_token,
        }
        answer = await self._transport.call("TurnService.ListTurns", fields)
        return [Turn.from_pb(t) for t in answer.turns], answer.next_page_token

    async def list(
        self, *, session_id: str = "", state: TurnState | str = TurnState.UNSPECIFIED
    ) -> AsyncIterator[Turn]:
        """All turns that match, newest first, page by page."""
        token = ""
        while True:
            turns, token = await self.page(session_id=session_id, state=state, page_token=token)
            for turn in turns:
                yield turn
            if not token:
                return

    async def history(self, turn_id: str, *, after: int = 0) -> AsyncIterator[Envelope]:
        """The durable events of a turn so far, without following it."""
        while True:
            fields = {"turn_id": turn_id, "after_sequence": after, "page_size": 1000}
            answer = await self._transport.call("TurnService.ListTurnEvents", fields)
            for message in answer.events:
                yield Envelope.from_pb(message)
                after = message.sequence
            if not answer.more:
                return

    async def _open(self, fields: dict[str, Any]) -> TurnHandle:
        ends = time.monotonic() + self._transport.timeout
        attempt = 0
        while True:
            failure: XenocommError = Unavailable("the stream ended before the turn was named")
            stream = self._transport.stream("TurnService.RunTurn", fields)
            try:
                handle = await self._first(stream, ends - time.monotonic())
                if handle is not None:
                    return handle
            except XenocommError as error:
                if not isinstance(error, TRANSIENT):
                    raise
                failure = error
            pause = pause_s(attempt, failure)
            attempt += 1
            if not self._transport.may_retry(failure, attempt) or time.monotonic() + pause >= ends:
                raise failure
            await asyncio.sleep(pause)

    async def _first(self, stream: Stream, left: float) -> TurnHandle | None:
        kept = False
        try:
            async with asyncio.timeout(max(left, 0.001)):
                first = await stream.read()
            for update in first.updates if first is not None else ():
                if update.HasField("event"):
                    kept = True
                    event = update.event
                    return TurnHandle(
                        self._transport, event.turn_id, event.session_id, opened=stream, first=first
                    )
            return None
        except TimeoutError:
            raise DeadlineExceeded("no turn was started in time; the same key finds it if it was") from None
        finally:
            if not kept:
                stream.cancel()


def _duration(timeout: float | timedelta | None) -> timedelta | None:
    if timeout is None or isinstance(timeout, timedelta):
        return timeout
    return timedelta(seconds=arguments.seconds("timeout", timeout))
