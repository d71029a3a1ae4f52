"""`kfm.events`: events across turns, followed over disconnects and restarts."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from xenocomm import arguments
from xenocomm._gen.errors import Unavailable, XenocommError
from xenocomm._gen.types import Envelope, Start
from xenocomm.reconnecting import Reconnecting
from xenocomm.transport import Stream, Transport


class Events:
    """Events of one server."""

    def __init__(self, transport: Transport) -> None:
        """Made by Client."""
        self._transport = transport

    def watch(
        self,
        types: Sequence[str] | str = (),
        *,
        session_id: str = "",
        labels: Mapping[str, str] | None = None,
        cursor: str = "",
        start: Start | str = Start.UNSPECIFIED,
    ) -> "EventWatch":
        """Every committed event that fits, each session's in order, and on without end: `async for envelope in ...`.

        `types` as `StepResultEvent.v1`, of events (all when empty); `labels` that the turn carries, all of them. Begins after
        `cursor`; without one, at `start`: `now` or `beginning`. InvalidArgument.
        """
        fields = {
            "types": [types] if isinstance(types, str) else list(types),
            "session_id": session_id,
            "labels": arguments.labels(labels or {}),
            "start": arguments.member("start", Start, start),
        }
        return EventWatch(self._transport, fields, cursor)


class EventWatch:
    """A subscription. `cursor` is where another one goes on after the events that were handed out."""

    def __init__(self, transport: Transport, fields: Mapping[str, Any], cursor: str) -> None:
        """Made by `kfm.events.watch`."""
        self._transport = transport
        self._fields = fields
        self.cursor = cursor

    async def __aiter__(self) -> AsyncIterator[Envelope]:
        """Each event once, across disconnects. Unavailable when no server could be reached for two minutes.

        `cursor` moves when the last event of a response has been handed out, so that a program that keeps it beside its own
        work loses none; after a crash it may see the last few again.
        """
        reconnecting = Reconnecting(self._transport)
        while True:
            reconnecting.opening()
            stream = self._transport.stream(
                "EventService.WatchEvents", {**self._fields, "cursor": self.cursor}
            )
            failure: XenocommError = Unavailable("the server ended the stream")
            try:
                async for response in _responses(stream):
                    reconnecting.heard()
                    for message in response.events:
                        yield Envelope.from_pb(message)
                    self.cursor = response.cursor or self.cursor
            except XenocommError as error:
                failure = error
            finally:
                stream.cancel()
            await asyncio.sleep(reconnecting.pause_s(stream.line, failure))


async def _responses(stream: Stream) -> AsyncIterator[Any]:
    while (response := await stream.read()) is not None:
        yield response
