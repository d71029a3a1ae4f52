"""A watcher at a process that does not own the turn: it sees what the owner tells, and every event once, also when the owner goes."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as pb
from kfm.turn.v1 import turn_service_pb2_grpc as rpc
from kfm.type.v1 import type_pb2 as types
from kfm_server.doors.grpc.interceptor import AT_OWNER

from tests.e2e.talker import ROUND
from tests.support.live import LiveServer
from tests.support.plans import call, document

pytestmark = pytest.mark.requirement("R8", "R10", "I7")

PIECES = 4 * ROUND
SECONDS = 40.0
TOKEN = "s3cret"
METADATA = (("authorization", f"Bearer {TOKEN}"),)


@dataclass
class Two:
    """Two servers on one database; the first owns a turn that talks, which is watched at the second."""

    owner: LiveServer
    other: LiveServer
    stub: Any
    turn_id: str
    heard: Path
    updates: list[api.TurnUpdate] = field(default_factory=list[api.TurnUpdate])

    async def read(self, attempt: int = 1) -> AsyncGenerator[api.TurnUpdate]:
        """What the watcher sees, from when it stands at the owner; the talker is let go on only in this attempt."""
        watch = self.stub.WatchTurn(pb.WatchTurnRequest(turn_id=self.turn_id), metadata=METADATA)
        await watch.initial_metadata()
        await asyncio.to_thread(self.owner.await_gauge, "kfm_watchers", 1)
        with self.heard.open("ab", buffering=0) as file:
            async for response in watch:
                for update in response.updates:
                    self.updates.append(update)
                    if update.delta.attempt == attempt:
                        file.write(b".")
                    yield update

    @property
    def sequences(self) -> list[int]:
        return [u.event.sequence for u in self.updates if u.HasField("event")]

    def numbers(self, attempt: int) -> list[int]:
        return [int(u.delta.progress[:6]) for u in self.updates if u.delta.attempt == attempt]


@pytest.fixture
async def two(tmp_path: Path, database: str) -> AsyncGenerator[Two]:
    servers = [
        LiveServer(
            tmp_path / name,
            tools="tests.e2e.talker:TOOLS",
            database_url=database,
            environment={"KFM_TOKEN": TOKEN},
        )
        for name in ("owner", "other")
    ]
    heard = tmp_path / "heard"
    document_ = document(call("talk", "talker", heard=str(heard), pieces=PIECES))
    try:
        await asyncio.to_thread(servers[0].start)
        async with grpc.aio.insecure_channel(servers[0].grpc) as channel:
            turn = api.TurnSpec(input=[types.Part(data_json=document_)])
            request = pb.SubmitTurnRequest(turn=turn, idempotency_key="talk")
            stub = rpc.TurnServiceStub(channel)
            submitted = await stub.SubmitTurn(request, timeout=SECONDS, metadata=METADATA)
        # Its share of the partitions is what nothing runs in: the turn stays where it is.
        await asyncio.to_thread(servers[1].start)
        async with grpc.aio.insecure_channel(servers[1].grpc) as channel:
            stub = rpc.TurnServiceStub(channel)
            yield Two(servers[0], servers[1], stub, submitted.turn_id, heard)
    finally:
        for server in servers:
            if server.process is not None:
                server.process.send_signal(signal.SIGCONT)
            await asyncio.to_thread(server.stop)


def outcome(update: api.TurnUpdate) -> "ev.Outcome":
    assert update.event.type == "TurnStateEvent.v1"
    return ev.TurnStateEvent.FromString(update.event.payload.value).outcome


async def test_a_watcher_at_another_process_sees_every_delta_and_every_event_once(two: Two) -> None:
    async with asyncio.timeout(SECONDS):
        async for _ in two.read():
            pass
    assert two.numbers(1) == list(range(PIECES))
    assert {u.epoch for u in two.updates if u.HasField("delta")} == {1}
    assert two.sequences == list(range(1, len(two.sequences) + 1))
    assert outcome(two.updates[-1]) == ev.OUTCOME_SUCCEEDED
    await asyncio.to_thread(two.owner.await_gauge, "kfm_watchers", 0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_when_the_owner_goes_the_same_stream_goes_on_with_its_successor(two: Two, how: int) -> None:
    gone = False
    async with asyncio.timeout(SECONDS):
        async for _ in two.read(attempt=2):
            if not gone and len(two.numbers(1)) == ROUND:
                gone = True
                assert two.owner.process is not None
                two.owner.process.send_signal(how)
    assert not any(u.HasField("reconnect") for u in two.updates)
    assert two.numbers(1) == list(range(ROUND))
    assert two.numbers(2) == list(range(PIECES))
    assert [u.epoch for u in two.updates if u.delta.attempt == 2] == [2] * PIECES
    assert two.sequences == list(range(1, len(two.sequences) + 1))
    assert outcome(two.updates[-1]) == ev.OUTCOME_SUCCEEDED


async def test_a_watch_that_was_passed_on_once_is_not_passed_on_again(two: Two) -> None:
    watch = two.stub.WatchTurn(
        pb.WatchTurnRequest(turn_id=two.turn_id), metadata=((AT_OWNER, "1"), *METADATA), timeout=SECONDS
    )
    found = [update async for response in watch for update in response.updates]
    assert [u.WhichOneof("update") for u in found] == ["reconnect"]
    two.heard.write_bytes(b"." * PIECES)
    request = pb.WaitTurnRequest(turn_id=two.turn_id)
    waited = await two.stub.WaitTurn(request, timeout=SECONDS, metadata=METADATA)
    assert waited.turn.outcome == ev.OUTCOME_SUCCEEDED
