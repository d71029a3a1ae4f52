"""Recorded turns: what a watcher was told, kept as JSON lines, and played as a turn without a server."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from xenocomm._gen.errors import TurnNotFound, Unimplemented
from xenocomm._gen.pool import POOL, pb
from xenocomm._gen.types import Envelope, TurnChange, TurnStateEvent, TurnUpdate
from xenocomm.connection import Connection
from xenocomm.handle import TurnHandle
from xenocomm.transport import Options, Stream, Transport

_UPDATE = "kfm.turn.v1.TurnUpdate"


def save(path: Path | str, updates: Iterable[TurnUpdate | Envelope]) -> None:
    """Write updates, or events alone, one JSON object a line."""
    lines = [json_format.MessageToJson(_pb(one), indent=None, descriptor_pool=POOL) for one in updates]
    Path(path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def load(path: Path | str) -> "RecordedTurn":
    """The turn that `save` wrote. ValueError with the line that cannot be read."""
    found: list[TurnUpdate] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            message = json_format.Parse(line, pb(_UPDATE)(), descriptor_pool=POOL)
        except json_format.ParseError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        found.append(TurnUpdate.from_pb(message))
    return RecordedTurn(found)


class RecordedTurn(TurnHandle):
    """A turn that plays what was recorded: everything that reads works as it does on a live one; the rest is Unimplemented.

    Its `get` and `result` know what the events tell of its end, not its plan.
    """

    def __init__(self, updates: Iterable[TurnUpdate | Envelope]) -> None:
        """The updates or events of one turn, in order. ValueError if there is no event among them."""
        messages = [_pb(one) for one in updates]
        first = next((m.event for m in messages if m.HasField("event")), None)
        if first is None:
            raise ValueError("a recorded turn has one event at least")
        super().__init__(_Player(messages, first.turn_id), first.turn_id, first.session_id)


class _Player(Transport):
    """Answers from a recording."""

    def __init__(self, messages: list[Any], turn_id: str) -> None:
        super().__init__(Connection("recorded:1"), Options())
        self.connection.connected = True
        self._messages = messages
        self._turn_id = turn_id

    async def call(self, rpc: str, fields: Mapping[str, Any], timeout: float | None = None) -> Any:
        """What the recording says of the turn."""
        if fields.get("turn_id") != self._turn_id:
            raise TurnNotFound("the recording has one turn")
        if rpc not in ("TurnService.GetTurn", "TurnService.WaitTurn"):
            raise Unimplemented(f"a recorded turn has no {rpc}")
        return pb("kfm.turn.v1.GetTurnResponse")(turn=self._turn())

    def stream(self, rpc: str, fields: Mapping[str, Any]) -> Stream:
        """The recording, from after a sequence."""
        after, kept = int(fields.get("after_sequence", 0)), list(self._messages)
        for index, message in enumerate(self._messages):
            if message.HasField("event") and message.event.sequence <= after:
                kept = self._messages[index + 1 :]
        return _Playing(self, kept)

    def _turn(self) -> Any:
        turn = pb("kfm.turn.v1.Turn")(turn_id=self._turn_id, state="TURN_STATE_RUNNING")
        for message in self._messages:
            if not message.HasField("event"):
                continue
            turn.session_id, turn.last_sequence = message.event.session_id, message.event.sequence
            event = Envelope.from_pb(message.event).event
            if not isinstance(event, TurnStateEvent):
                continue
            told = event.to_pb()
            turn.wait_reason = told.wait_reason
            if event.change == TurnChange.FINISHED:
                turn.state, turn.outcome = "TURN_STATE_FINISHED", told.outcome
                turn.output.extend(told.output)
                turn.usage.CopyFrom(told.usage)
                turn.finished_at.CopyFrom(message.event.timestamp)
                if told.HasField("error"):
                    turn.error.CopyFrom(told.error)
        return turn


class _Playing(Stream):
    """A stream of recorded updates, one a response."""

    def __init__(self, transport: Transport, messages: list[Any]) -> None:
        super().__init__(transport, None)
        self._left = list(reversed(messages))

    async def read(self) -> Any:
        """The next one; None after the last."""
        await asyncio.sleep(0)
        return pb("kfm.turn.v1.WatchTurnResponse")(updates=[self._left.pop()]) if self._left else None

    def cancel(self) -> None:
        """Nothing is open."""


def _pb(one: TurnUpdate | Envelope) -> Any:
    return one.to_pb() if isinstance(one, TurnUpdate) else TurnUpdate(event=one).to_pb()
