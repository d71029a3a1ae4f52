"""Subscriptions across turns over the wire: limits, drain, many readers, one that does not read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kfm.event.v1 import event_service_pb2 as pb
from kfm.event.v1 import event_service_pb2_grpc as rpc
from kfm_server.runtime.following import is_end
from xenocomm import Client

from tests.support.live import LiveServer
from tests.support.plans import call, given
from tests.support.refusals import refusal

pytestmark = pytest.mark.requirement("R11")
LIMIT = 30.0
MANY = 200


@pytest.fixture
async def events(live_server: LiveServer) -> AsyncGenerator[Any]:
    async with grpc.aio.insecure_channel(live_server.grpc) as channel:
        yield rpc.EventServiceStub(channel)


async def begun(stream: Any) -> pb.WatchEventsResponse:
    """The first response: the subscription stands."""
    async with asyncio.timeout(LIMIT):
        first = await anext(aiter(stream))
    assert first.cursor
    assert not first.events
    return first


async def until_end_of(stream: AsyncIterator[pb.WatchEventsResponse], turn_id: str) -> list[str]:
    """Ids of the events of a turn up to its last."""
    ids: list[str] = []
    async with asyncio.timeout(LIMIT):
        async for response in stream:
            for event in response.events:
                if event.turn_id == turn_id:
                    ids.append(event.event_id)
                    if is_end(event):
                        return ids
    raise AssertionError(ids)


async def test_a_subscription_sees_what_the_list_of_the_turn_has(live: Client, events: Any) -> None:
    stream = events.WatchEvents(pb.WatchEventsRequest(labels={"probe": "one"}))
    await begun(stream)
    other = await live.turns.start("1 + 1", labels={"probe": "two"})
    turn = await live.turns.start("2 + 3", labels={"probe": "one", "more": "x"})
    seen = await until_end_of(stream, turn.id)
    stream.cancel()
    await other.result(timeout=LIMIT)
    assert seen == [f"{turn.id}.{n}" for n in range(1, len(seen) + 1)]
    assert len(seen) == (await turn.get()).last_sequence


async def test_wrong_types_and_cursors_are_typed_errors(events: Any) -> None:
    for request, reason in (
        (pb.WatchEventsRequest(types=["NovelEvent.v1"]), "REASON_INVALID_ARGUMENT"),
        (pb.WatchEventsRequest(types=["no"]), "REASON_INVALID_ARGUMENT"),
        (pb.WatchEventsRequest(cursor="no"), "REASON_PAGE_TOKEN_INVALID"),
        (pb.WatchEventsRequest(cursor="a\0b"), "REASON_INVALID_ARGUMENT"),
        (pb.WatchEventsRequest(session_id="x"), "REASON_INVALID_ARGUMENT"),
        (pb.WatchEventsRequest(labels={"Bad Label!": "x"}), "REASON_INVALID_ARGUMENT"),
        (pb.WatchEventsRequest(labels={"a": "x" * 257}), "REASON_INVALID_ARGUMENT"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(events.WatchEvents(request)))
        found = refusal(caught.value)
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_two_hundred_watchers_all_see_every_turn(live: Client, events: Any) -> None:
    streams = [events.WatchEvents(pb.WatchEventsRequest(types=["TurnEvent.v1"])) for _ in range(MANY)]
    for stream in streams:
        await begun(stream)
    turns = [await live.turns.start("2 + 3") for _ in range(5)]
    wanted = {turn.id for turn in turns}

    async def see(stream: Any) -> None:
        left = set(wanted)
        while left:
            response = await anext(aiter(stream))
            left -= {event.turn_id for event in response.events}

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(see(stream))
    for stream in streams:
        stream.cancel()
    for turn in turns:
        await turn.result(timeout=LIMIT)


async def test_one_that_does_not_read_holds_up_nobody(live: Client, events: Any) -> None:
    lazy = events.WatchEvents(pb.WatchEventsRequest(start=pb.START_BEGINNING))
    stream = events.WatchEvents(pb.WatchEventsRequest())
    await begun(stream)
    turn, seen = None, list[str]()
    for _ in range(8):
        turn = await live.turns.start(given(call("s1", "ledger_pure", note="x" * 200_000)))
        seen = await until_end_of(stream, turn.id)
        assert len(seen) == (await turn.get()).last_sequence
    stream.cancel()
    ids: set[str] = set()
    assert turn is not None
    await until_end_of(_noting(lazy, ids), turn.id)
    assert set(seen) <= ids, "what it did not read waited in the journal"
    lazy.cancel()


async def _noting(stream: Any, ids: set[str]) -> AsyncGenerator[pb.WatchEventsResponse]:
    async for response in stream:
        ids |= {event.event_id for event in response.events}
        yield response


async def test_subscriptions_count_as_streams_and_end_with_the_server_to_be_resumed(
    tmp_path: Path, database: str
) -> None:
    server = LiveServer(tmp_path / "home", database_url=database, environment={"KFM_MAX_STREAMS": "3"})
    try:
        await asyncio.to_thread(server.start)
        async with grpc.aio.insecure_channel(server.grpc) as channel, Client(server.grpc) as kfm:
            stub: Any = rpc.EventServiceStub(channel)
            streams = [stub.WatchEvents(pb.WatchEventsRequest()) for _ in range(3)]
            cursor, *_ = [(await begun(stream)).cursor for stream in streams]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(stub.WatchEvents(pb.WatchEventsRequest())))
            assert refusal(caught.value).limit == "max_streams"
            streams[2].cancel()
            await asyncio.to_thread(server.await_gauge, "kfm_streams", 2)
            turn = await kfm.turns.start("2 + 3")
            await turn.result(timeout=LIMIT)
            assert await asyncio.to_thread(server.stop) == 0
            for stream in streams[:2]:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    async for _ in stream:
                        pass
                told = refusal(caught.value)
                assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "REASON_DRAINING")
        await asyncio.to_thread(server.start)
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            again: Any = rpc.EventServiceStub(channel)
            stream = again.WatchEvents(pb.WatchEventsRequest(cursor=cursor))
            seen = await until_end_of(stream, turn.id)
            assert seen == [f"{turn.id}.{n}" for n in range(1, len(seen) + 1)]
            stream.cancel()
    finally:
        await asyncio.to_thread(server.stop)
