"""`kfm.turns`: starting turns and finding them."""

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeVar, overload

from xenocomm import arguments
from xenocomm._gen.errors import DeadlineExceeded, Unavailable, XenocommError
from xenocomm._gen.pool import pb
from xenocomm._gen.types import BusyMode, Envelope, Limits, Turn, TurnState
from xenocomm.arguments import Input, new_key
from xenocomm.handle import TurnHandle
from xenocomm.output import schema_json
from xenocomm.paging import Listing, Page
from xenocomm.transport import Rounds, Stream, Transport

T = TypeVar("T")


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
        limits: Limits | Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        output: type[Any] | Mapping[str, Any] | None = None,
        idempotency_key: str = "",
        watch: bool = False,
    ) -> TurnHandle:
        """Hand a message in; the turn is durable when this returns. SessionBusy, InvalidArgument, IdempotencyConflict.

        `message` is text, a Part, JSON data such as `{"plan": ...}`, or a list of these. `timeout` (seconds) ends the turn
        itself. `limits`, such as `{"max_tokens": 20_000, "max_cost": "0.05"}`: Limits, or its fields with the cost in US
        dollars. `output` asks for an answer in this type, or of this JSON Schema: `turn.output(kind)` reads it. With `watch`
        the same call also opens the stream that the handle's first reader takes over, which saves a round trip to a caller
        that reads at once.
        """
        spec = {
            "session_id": session_id,
            "personality": personality,
            "input": arguments.parts(message),
            "on_busy": arguments.member("on_busy", BusyMode, on_busy),
            "timeout": _duration(timeout),
            "limits": None if limits is None else arguments.limits(limits),
            "labels": arguments.labels(labels or {}),
            "output_schema_json": "" if output is None else schema_json(output),
        }
        fields = {
            "turn": arguments.build(pb("kfm.turn.v1.TurnSpec"), spec),
            "idempotency_key": idempotency_key or new_key(),
        }
        if watch:
            with self._transport.span("TurnService.RunTurn"):
                return await self._open(fields)
        answer = await self._transport.call("TurnService.SubmitTurn", fields)
        return TurnHandle(self._transport, answer.turn_id, answer.session_id)

    @overload
    async def run(
        self,
        message: Input,
        *,
        output: None = None,
        wait: float | None = None,
        check: bool = True,
        **how: Any,
    ) -> Turn: ...
    @overload
    async def run(self, message: Input, *, output: type[T], wait: float | None = None, **how: Any) -> T: ...
    @overload
    async def run(
        self, message: Input, *, output: Mapping[str, Any], wait: float | None = None, **how: Any
    ) -> Any: ...
    async def run(
        self, message: Input, *, output: Any = None, wait: float | None = None, check: bool = True, **how: Any
    ) -> Any:
        """Start a turn and wait, for `wait` seconds if given, for its end. `how` as for `start`, failures as for `result`.

        With `output`, a dataclass, TypedDict, pydantic model or JSON Schema, returns the answer in that type in place of the
        turn. OutputMismatch, with the turn, if it does not fit.
        """
        handle = await self.start(message, output=output, **how)
        if output is not None:
            return await handle.output(output, timeout=wait)
        return await handle.result(timeout=wait, check=check)

    def attach(self, turn_id: str) -> TurnHandle:
        """A handle for a turn that exists; asks the server nothing."""
        return TurnHandle(self._transport, turn_id)

    async def get(self, turn_id: str) -> Turn:
        """The turn as it is now. TurnNotFound."""
        return await self.attach(turn_id).get()

    def list(
        self,
        *,
        session_id: str = "",
        state: TurnState | str = TurnState.UNSPECIFIED,
        page_size: int = 0,
    ) -> Listing[Turn]:
        """All turns that match, without their steps, newest first."""
        number = arguments.member("state", TurnState, state)

        async def fetch(token: str, size: int) -> Page[Turn]:
            fields = {"session_id": session_id, "state": number, "page_size": size, "page_token": token}
            answer = await self._transport.call("TurnService.ListTurns", fields)
            return Page([Turn.from_pb(t) for t in answer.turns], answer.next_page_token)

        return Listing(fetch, page_size)

    def history(self, turn_id: str, *, after: int = 0, page_size: int = 1000) -> Listing[Envelope]:
        """The durable events of a turn so far, without following it. A page's token is the last sequence on it."""

        async def fetch(token: str, size: int) -> Page[Envelope]:
            since = int(token) if token.isdecimal() else after
            fields = {"turn_id": turn_id, "after_sequence": since, "page_size": size}
            answer = await self._transport.call("TurnService.ListTurnEvents", fields)
            events = [Envelope.from_pb(message) for message in answer.events]
            return Page(events, str(events[-1].sequence) if answer.more and events else "")

        return Listing(fetch, page_size)

    async def _open(self, fields: dict[str, Any]) -> TurnHandle:
        ends = time.monotonic() + self._transport.timeout
        rounds = Rounds(self._transport)
        while True:
            failure: XenocommError = Unavailable("the stream ended before the turn was named")
            stream = self._transport.stream("TurnService.RunTurn", fields)
            try:
                handle = await self._first(stream, ends - time.monotonic())
                if handle is not None:
                    return handle
            except XenocommError as error:
                failure = error
            pause = rounds.pause_s(stream.line, failure)
            if time.monotonic() + pause >= ends:
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
