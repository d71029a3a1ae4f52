"""A turn in the caller's hand."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any, TypeVar, overload

from xenocomm._gen.errors import DeadlineExceeded
from xenocomm._gen.types import (
    Envelope,
    ExplainTurnResponse,
    Message,
    Part,
    SettleAs,
    Turn,
    TurnState,
    TurnStateEvent,
    TurnUpdate,
)
from xenocomm.arguments import member, new_key, seconds
from xenocomm.deltas import Delta, Kind, pieces
from xenocomm.failures import WAITS_FOR_PERSON, ResultTimeout, TurnNeedsPerson, check_outcome
from xenocomm.follow import Follower
from xenocomm.output import parse
from xenocomm.paging import Listing
from xenocomm.sessions import Sessions
from xenocomm.transport import Stream, Transport

T = TypeVar("T")
_PART_BYTES = 1024 * 1024
_LONGEST_WAIT_S = 60.0


def text_of(output: Iterable[Part]) -> str:
    """The text of an answer, one line per part; its data instead when it has no text."""
    parts = list(output)
    return "\n".join(p.text for p in parts if p.text) or "\n".join(p.data_json for p in parts if p.data_json)


class TurnHandle:
    """One turn by its id. Holding one holds nothing open; losing one loses nothing."""

    def __init__(
        self,
        transport: Transport,
        turn_id: str,
        session_id: str = "",
        *,
        opened: Stream | None = None,
        first: Any = None,
    ) -> None:
        """Made by `kfm.turns`. `opened` is a stream from sequence 0 that the first reader takes over."""
        self._transport = transport
        self._opened = opened
        self._first = first
        self.id = turn_id
        self.session_id = session_id

    def __repr__(self) -> str:
        return f"TurnHandle({self.id!r})"

    def updates(self, after: int = 0, *, timeout: float | None = None) -> AsyncGenerator[TurnUpdate, None]:
        """Everything a watcher is told after a sequence: durable events, deltas, gaps; ends after the last event.

        Re-attaches by itself; each sequence comes once. DeadlineExceeded after `timeout` seconds, if given.
        """
        opened = first = None
        if after == 0:
            opened, self._opened = self._opened, None
            first, self._first = self._first, None
        follower = Follower(
            self._transport, self.id, after=after, timeout=timeout, opened=opened, first=first
        )
        return follower.updates()

    async def events(self, after: int = 0, *, timeout: float | None = None) -> AsyncIterator[Envelope]:
        """The durable events after a sequence, each once and in order; `envelope.event` is the typed payload."""
        async with aclosing(self.updates(after, timeout=timeout)) as updates:
            async for update in updates:
                if update.event is not None:
                    yield update.event

    async def text(self, *, timeout: float | None = None) -> AsyncIterator[str]:
        """The answer's text as it forms; joined, the pieces are the answer.

        What cannot be taken back, as the text of an earlier step or of an attempt that starts over, stands before it on
        lines of its own.
        """
        shown, writer = "", ("", 0)
        async with aclosing(self.updates(timeout=timeout)) as updates:
            async for update in updates:
                delta = update.delta
                if delta is not None and delta.text:
                    if shown and writer != (delta.step_key, delta.attempt):
                        shown = ""
                        yield "\n"
                    writer = delta.step_key, delta.attempt
                    shown += delta.text
                    yield delta.text
                event = update.event.event if update.event else None
                if isinstance(event, TurnStateEvent) and event.output:
                    whole = text_of(event.output)
                    rest = whole[len(shown) :] if whole.startswith(shown) else f"\n{whole}"
                    if rest:
                        yield rest
                    shown = whole

    def deltas(self, *kinds: Kind, timeout: float | None = None) -> AsyncGenerator[Delta, None]:
        """Output as it forms: a `Piece` of one of the kinds (`text`, `reasoning`, `tool_arguments`, `progress`; all when none
        is named), a `Discard` when a new attempt voids a step's pieces so far, a `Missed` where some were dropped.
        """
        updates = self.updates(timeout=timeout)
        return pieces(updates, kinds) if kinds else pieces(updates)

    def text_deltas(self, *, timeout: float | None = None) -> AsyncGenerator[Delta, None]:
        """`deltas("text")`."""
        return self.deltas("text", timeout=timeout)

    async def until_done(
        self,
        on_update: Callable[[TurnUpdate], object] | None = None,
        *,
        timeout: float | None = None,
        check: bool = True,
    ) -> Turn:
        """Read the stream to the turn's end, hand each update to `on_update`, and return as `result` does.

        A wait for a person ends the reading, too: TurnNeedsPerson, or with `check=False` the turn as it stands.
        ResultTimeout after `timeout` seconds.
        """
        try:
            async with aclosing(self.updates(timeout=timeout)) as updates:
                async for update in updates:
                    if on_update is not None:
                        on_update(update)
                    event = update.event.event if update.event else None
                    if isinstance(event, TurnStateEvent) and event.wait_reason in WAITS_FOR_PERSON:
                        turn = await self.get()
                        if turn.wait_reason in WAITS_FOR_PERSON:
                            break
        except DeadlineExceeded as late:
            raise ResultTimeout(late.message) from late
        return await self.result(check=check)

    @overload
    async def output(self, kind: type[T], *, timeout: float | None = None) -> T: ...
    @overload
    async def output(self, kind: Mapping[str, Any], *, timeout: float | None = None) -> Any: ...
    async def output(self, kind: Any, *, timeout: float | None = None) -> Any:
        """Wait as `result` does, and read the answer into the type that the turn was started with as `output`.

        OutputMismatch, with the turn, if it does not fit.
        """
        return parse(await self.result(timeout=timeout), kind)

    async def session_messages(self, *, page_size: int = 0) -> Listing[Message]:
        """What was said in the turn's session, oldest first: message and answer of each turn that ended."""
        if not self.session_id:
            self.session_id = (await self.get()).session_id
        return Sessions(self._transport).messages(self.session_id, page_size=page_size)

    async def result(self, *, timeout: float | None = None, check: bool = True) -> Turn:
        """Wait for the end and return the turn with its plan, attempts and output.

        With `check`, raises TurnFailed, TurnCancelled or TurnTimedOut for a turn that did not succeed, and
        TurnNeedsPerson for one that waits for a person. Without, returns either: the latter has not ended, so look at
        `turn.state` and `turn.wait_reason`. ResultTimeout after `timeout` seconds, of any number; the turn goes on.
        """
        bound_s = None if timeout is None else seconds("timeout", timeout)
        self.release()
        ends = None if bound_s is None else time.monotonic() + bound_s
        while True:
            left = _LONGEST_WAIT_S if ends is None else ends - time.monotonic()
            bound = max(0.0, min(left, _LONGEST_WAIT_S))
            fields = {"turn_id": self.id, "timeout": timedelta(seconds=bound)}
            answer = await self._transport.call(
                "TurnService.WaitTurn", fields, timeout=bound + self._transport.timeout
            )
            turn = Turn.from_pb(answer.turn)
            if turn.state == TurnState.FINISHED:
                return check_outcome(turn) if check else turn
            if turn.wait_reason in WAITS_FOR_PERSON:
                if check:
                    raise TurnNeedsPerson(turn)
                return turn
            if ends is not None and time.monotonic() >= ends:
                raise ResultTimeout(f"turn {self.id} had not ended after {bound_s:g} s; it goes on")

    async def get(self) -> Turn:
        """The turn as it is now. TurnNotFound."""
        return await self._turn("GetTurn", {})

    async def step_output(self, step_key: str) -> str:
        """The whole output of a step that succeeded, as JSON: also one that `get` leaves out for its size.

        StepNotFound; StateConflict before it succeeded.
        """
        body = b""
        while True:
            fields = {"turn_id": self.id, "step_key": step_key, "offset": len(body), "max_bytes": _PART_BYTES}
            answer = await self._transport.call("TurnService.ReadStepOutput", fields)
            body += answer.data
            if not answer.data or len(body) >= answer.total_bytes:
                return body.decode()

    async def explain(self) -> ExplainTurnResponse:
        """What it waits for, since when, until when, what happens then, and which verb ends it now."""
        answer = await self._transport.call("TurnService.ExplainTurn", {"turn_id": self.id})
        return ExplainTurnResponse.from_pb(answer)

    async def cancel(self, reason: str = "", *, idempotency_key: str = "") -> Turn:
        """End it; effects already done stand and are listed. TurnFinished if it has ended."""
        return await self._control("CancelTurn", idempotency_key, {"reason": reason})

    async def pause(self, reason: str = "", *, idempotency_key: str = "") -> Turn:
        """Start no more steps until `resume`."""
        return await self._control("PauseTurn", idempotency_key, {"reason": reason})

    async def resume(self, reason: str = "", *, idempotency_key: str = "") -> Turn:
        """Go on after `pause`."""
        return await self._control("ResumeTurn", idempotency_key, {"reason": reason})

    async def answer(self, step_key: str, output_json: str, *, idempotency_key: str = "") -> Turn:
        """Answer a HUMAN step with a JSON value, as text: `'"yes"'`, `'true'`."""
        fields = {"step_key": step_key, "output_json": output_json}
        return await self._control("AnswerStep", idempotency_key, fields)

    async def settle(
        self,
        step_key: str,
        settle_as: SettleAs | str,
        *,
        output_json: str = "",
        reason: str = "",
        idempotency_key: str = "",
    ) -> Turn:
        """Say how a step of unknown outcome ended: `succeeded`, with its output, `failed`, or `retry` to run it again."""
        fields = {
            "step_key": step_key,
            "settle_as": member("settle_as", SettleAs, settle_as),
            "output_json": output_json,
            "reason": reason,
        }
        return await self._control("SettleStep", idempotency_key, fields)

    async def retry(self, *, idempotency_key: str = "") -> "TurnHandle":
        """Run it again from its failed step, as a new turn whose tools see the same keys."""
        return await self._again("RetryTurn", {}, idempotency_key)

    async def fork(self, step_key: str, *, idempotency_key: str = "") -> "TurnHandle":
        """Run it again from a step, as a new turn with keys of its own."""
        return await self._again("ForkTurn", {"step_key": step_key}, idempotency_key)

    def release(self) -> None:
        """Let go of the stream that `start(watch=True)` left open, if nobody has read it."""
        opened, self._opened, self._first = self._opened, None, None
        if opened is not None:
            opened.cancel()

    async def _again(self, rpc: str, fields: dict[str, Any], key: str) -> "TurnHandle":
        fields |= {"turn_id": self.id, "idempotency_key": key or new_key()}
        answer = await self._transport.call(f"TurnService.{rpc}", fields)
        return TurnHandle(self._transport, answer.turn_id, answer.session_id)

    async def _control(self, rpc: str, key: str, fields: dict[str, Any]) -> Turn:
        return await self._turn(rpc, fields | {"idempotency_key": key or new_key()})

    async def _turn(self, rpc: str, fields: dict[str, Any]) -> Turn:
        answer = await self._transport.call(f"TurnService.{rpc}", {"turn_id": self.id} | fields)
        return Turn.from_pb(answer.turn)
