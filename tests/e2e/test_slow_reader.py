"""A reader that reads nothing while ten megabytes of deltas arrive (FT12), on a real server over a real channel."""

import asyncio
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as pb
from kfm.turn.v1 import turn_service_pb2_grpc as rpc
from kfm.type.v1 import type_pb2 as types
from kfm_server.runtime.broadcaster import UNSENT_LIMIT_BYTES

from tests.e2e.talker import PIECES
from tests.support.live import LiveServer
from tests.support.plans import call, document

SECONDS = 60.0


@pytest.fixture
def server(postgres_home: Path, database: str) -> Generator[LiveServer]:
    server = LiveServer(postgres_home / "talker", tools="tests.e2e.talker:TOOLS", database_url=database)
    try:
        server.start()
        yield server
    finally:
        server.stop()


async def updates(watch: Any) -> AsyncIterator[api.TurnUpdate]:
    async for response in watch:
        for update in response.updates:
            yield update


@pytest.mark.requirement("E1", "FT12")
async def test_a_reader_that_reads_nothing_costs_the_server_little_and_misses_only_deltas(
    server: LiveServer, tmp_path: Path
) -> None:
    heard = tmp_path / "heard"
    own = [("grpc.use_local_subchannel_pool", 1)]
    # A small window: what the slow one leaves unread piles up at the server and not in its own process.
    narrow = [*own, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]
    async with (
        asyncio.timeout(SECONDS),
        grpc.aio.insecure_channel(server.grpc, options=own) as near,
        grpc.aio.insecure_channel(server.grpc, options=narrow) as far,
    ):
        turn = api.TurnSpec(input=[types.Part(data_json=document(call("talk", "talker", heard=str(heard))))])
        submitted = await rpc.TurnServiceStub(near).SubmitTurn(
            pb.SubmitTurnRequest(turn=turn, idempotency_key="talk")
        )
        request = pb.WatchTurnRequest(turn_id=submitted.turn_id)
        slow = rpc.TurnServiceStub(far).WatchTurn(request)
        await slow.initial_metadata()
        sequences: list[int] = []
        numbers: list[int] = []
        held: list[int] = []
        watch = rpc.TurnServiceStub(near).WatchTurn(request)
        await watch.initial_metadata()
        with heard.open("ab", buffering=0) as file:
            async for update in updates(watch):
                assert not update.HasField("gap"), "the one who reads along misses nothing"
                if update.HasField("delta"):
                    numbers.append(int(update.delta.progress[:6]))
                    file.write(b".")
                    if len(numbers) % 256 == 0:
                        held.append(await asyncio.to_thread(server.gauge, "kfm_watcher_unsent_bytes"))
                if update.HasField("event"):
                    sequences.append(update.event.sequence)
        late = [update async for update in updates(slow)]
    assert numbers == list(range(PIECES))
    assert sequences == list(range(1, len(sequences) + 1))
    assert UNSENT_LIMIT_BYTES // 2 < max(held) <= UNSENT_LIMIT_BYTES
    assert [u.event.sequence for u in late if u.HasField("event")] == sequences
    gaps = [u.gap for u in late if u.HasField("gap")]
    assert gaps and all((gap.step_key, gap.attempt) == ("talk", 1) for gap in gaps)
    seen = [int(u.delta.progress[:6]) for u in late if u.HasField("delta")]
    assert seen == sorted(seen) and len(seen) < PIECES
