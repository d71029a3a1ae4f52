"""EventService: translates between its messages and the feed of events across turns."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Protocol

from kfm.event.v1 import event_service_pb2
from kfm.turn.v1.turn_pb2 import TurnSpec
from kfm.type.v1.type_pb2 import Part

from kfm_server.context import ExecutionContext
from kfm_server.doors.grpc.drain import Drain
from kfm_server.doors.grpc.interceptor import Call
from kfm_server.doors.grpc.validation import check, check_text
from kfm_server.runtime.event_feed import Batch, Wanted

_pb = event_service_pb2


class Events(Protocol):
    """The runtime as this door sees it: EventFeed."""

    def watch(
        self, ctx: ExecutionContext, wanted: Wanted, cursor: str, start: "event_service_pb2.Start"
    ) -> AsyncGenerator[Batch]: ...


class EventService:
    """The bodies of kfm.event.v1.EventService, by the names of its RPCs."""

    SERVICE = "kfm.event.v1.EventService"

    def __init__(self, events: Events, drain: Drain) -> None:
        """`drain` ends subscriptions with Draining when the server stops: the last cursor resumes them elsewhere."""
        self._events = events
        self._drain = drain

    async def WatchEvents(
        self, call: Call, request: _pb.WatchEventsRequest
    ) -> AsyncGenerator[_pb.WatchEventsResponse, None]:
        """Follow, without end. The first response has no events: it tells the cursor from which the subscription stands."""
        check_text("cursor", request.cursor)
        _check_labels(request.labels)
        wanted = Wanted(frozenset(request.types), request.session_id, dict(request.labels))
        async with aclosing(self._events.watch(call.ctx, wanted, request.cursor, request.start)) as batches:
            while batch := await self._drain.wait(lambda: anext(batches, None)):
                events, cursor = batch
                yield _pb.WatchEventsResponse(events=events, cursor=cursor)
                del batch, events  # an idle stream keeps nothing of what it has sent


def _check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that no turn can carry: nobody would ever be told anything. InvalidArgument, by the rules of a turn's."""
    check(TurnSpec(input=[Part(text="any")], labels=labels))
