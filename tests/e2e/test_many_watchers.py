"""A thousand watchers in a burst, a tenth of them coming and going (FT15). Ten thousand: python -m bench.watchers --churn 10."""

import asyncio
from collections.abc import Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as pb
from kfm.turn.v1 import turn_service_pb2_grpc as rpc
from kfm.type.v1 import type_pb2 as types

from tests.faults.footprint import footprint, settled
from tests.support.live import LiveServer
from tests.support.plans import document, question
from tests.support.refusals import Refused, refusal

WATCHERS = 1000
CHANNELS = 4
ROUNDS = 3
SECONDS = 30.0
"""Longest wait for all of them to be served."""


@pytest.fixture
def server(postgres_home: Path, database: str) -> Generator[LiveServer]:
    """A server whose quota the watchers just fill."""
    server = LiveServer(
        postgres_home / "watchers", database_url=database, environment={"KFM_MAX_STREAMS": str(WATCHERS)}
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Crowd:
    """Watchers of one turn; `seen` is the last sequence of each."""

    def __init__(self, stubs: list[Any], turn_id: str, group: asyncio.TaskGroup) -> None:
        self.seen: dict[int, int] = {}
        self._stubs, self._turn_id, self._group = stubs, turn_id, group
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._came = asyncio.Event()

    def enter(self, indexes: range) -> None:
        """All at once."""
        for index in indexes:
            self.seen[index] = 0
            self._tasks[index] = self._group.create_task(self._watch(index), name=f"watcher {index}")

    async def leave(self, indexes: range) -> None:
        """They are gone when this returns."""
        for index in indexes:
            self._tasks[index].cancel()
        await asyncio.wait([self._tasks[index] for index in indexes])

    async def reach(self, sequence: int) -> None:
        """Wait until each has seen it."""
        async with asyncio.timeout(SECONDS):
            while min(self.seen.values()) < sequence:
                self._came.clear()
                await self._came.wait()

    async def ended(self) -> None:
        """Wait until each stream has ended well."""
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*self._tasks.values())

    async def _watch(self, index: int) -> None:
        stub = self._stubs[index % CHANNELS]
        async for response in stub.WatchTurn(pb.WatchTurnRequest(turn_id=self._turn_id)):
            for update in response.updates:
                assert update.event.sequence == self.seen[index] + 1
                self.seen[index] = update.event.sequence
            self._came.set()


@pytest.mark.requirement("E1", "FT15", "I9")
async def test_a_thousand_watchers_come_and_go_all_served_up_to_the_quota_and_leave_nothing_behind(
    server: LiveServer,
) -> None:
    everyone = range(WATCHERS)
    async with AsyncExitStack() as stack:
        stubs: list[Any] = []
        for _ in range(CHANNELS):
            own = grpc.aio.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
            stubs.append(rpc.TurnServiceStub(await stack.enter_async_context(own)))
        turn = api.TurnSpec(input=[types.Part(data_json=document(question("go")))])
        submitted = await stubs[0].SubmitTurn(pb.SubmitTurnRequest(turn=turn, idempotency_key="watched"))
        request = pb.WaitTurnRequest(turn_id=submitted.turn_id)
        head = (await stubs[0].WaitTurn(request, timeout=SECONDS)).turn.last_sequence
        group = await stack.enter_async_context(asyncio.TaskGroup())
        crowd = Crowd(stubs, submitted.turn_id, group)

        # Once before it counts: what a first crowd makes grow for good, such as pools, is no leak.
        crowd.enter(everyone)
        await crowd.reach(head)
        await crowd.leave(everyone)
        await asyncio.to_thread(server.await_gauge, "kfm_streams", 0)
        before = await asyncio.to_thread(footprint, server)

        crowd.enter(everyone)
        await crowd.reach(head)
        with pytest.raises(grpc.aio.AioRpcError) as one_more:
            await stubs[0].WatchTurn(pb.WatchTurnRequest(turn_id=submitted.turn_id), timeout=SECONDS).read()
        assert refusal(one_more.value) == Refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "REASON_TOO_MANY_STREAMS", "max_streams", 1000
        )
        for number in range(ROUNDS):
            tenth = range(number, WATCHERS, 10)
            await crowd.leave(tenth)
            await asyncio.to_thread(server.await_gauge, "kfm_streams", WATCHERS - len(tenth))
            crowd.enter(tenth)
            await crowd.reach(head)
        answer = pb.AnswerStepRequest(
            turn_id=submitted.turn_id, step_key="go", output_json="true", idempotency_key="answer"
        )
        await stubs[0].AnswerStep(answer, timeout=SECONDS)
        await crowd.ended()
        assert len(set(crowd.seen.values())) == 1, "each saw the end"
        await settled(server, before)
