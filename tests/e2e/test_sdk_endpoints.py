"""Xenocomm with several addresses: whichever of them goes away, calls and streams go on at another."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from kfm.catalogue.errors import Draining, Overloaded
from xenocomm import Client, ConnectFailed, errors

from tests.e2e.toy_door import Running, toy_door
from tests.e2e.toy_turns import ToyTurns

pytestmark = pytest.mark.requirement("E5", "R10")
NOWHERE = "127.0.0.1:1"


def both(*doors: Running) -> str:
    return ",".join(door.grpc for door in doors)


async def test_a_call_goes_on_at_another_address_when_its_server_goes_away() -> None:
    turns = ToyTurns()
    async with AsyncExitStack() as stack:
        doors = {
            d.grpc: d for d in [await stack.enter_async_context(toy_door(turns=turns)) for _ in range(3)]
        }
        kfm = await stack.enter_async_context(Client(both(*doors.values()), timeout=10))
        turn = await kfm.turns.run("hello")
        for _ in range(2):
            at = kfm.endpoint
            await doors.pop(at).door.stop(0)
            raw = await kfm.with_raw(kfm.turns.get(turn.turn_id))
            assert raw.value == turn and kfm.endpoint in doors
            assert len(raw.calls) == 2, "one address failed, the next answered at once"
        await doors.popitem()[1].door.stop(0)
        with pytest.raises(ConnectFailed):
            await kfm.with_options(timeout=1).turns.get(turn.turn_id)


async def test_an_address_that_never_answered_is_passed_over() -> None:
    async with toy_door() as door:
        for _ in range(8):  # whichever is drawn first
            async with Client(f"{NOWHERE}, {door.grpc}", retries=0) as kfm:
                assert (await kfm.turns.run("hello")).output[0].text == "hello"
                assert kfm.endpoint == door.grpc
    async with Client(f"{NOWHERE},127.0.0.1:2", retries=0) as kfm:
        with pytest.raises(ConnectFailed):
            await kfm.turns.run("hello")


@pytest.mark.parametrize("refusal", [Draining(retry_after_ms=60_000), Overloaded(retry_after_ms=60_000)])
async def test_what_one_server_refuses_for_now_is_asked_of_the_next_at_once(
    refusal: Draining | Overloaded,
) -> None:
    turns = ToyTurns()
    async with toy_door(turns=turns) as one, toy_door(turns=turns) as two:
        async with Client(both(one, two), timeout=5) as kfm:
            first = await kfm.turns.run("hello")
            turns.fail = [refusal]
            assert await kfm.turns.get(first.turn_id) == first
            turns.fail = [refusal]
            assert (await kfm.turns.run("again")).output[0].text == "again"


async def test_a_stream_goes_on_at_another_address_when_its_server_goes_away() -> None:
    turns = ToyTurns()
    async with toy_door(turns=turns) as one, toy_door(turns=turns) as two:
        doors = {door.grpc: door for door in (one, two)}
        async with Client(both(one, two), timeout=10) as kfm, asyncio.timeout(30):
            turn = await kfm.turns.start("wait")
            seen: list[int] = []
            async for event in turn.events():
                seen.append(event.sequence)
                if len(seen) == 1:
                    await doors[kfm.endpoint].door.stop(0)
                    await turns.finish(turn.id)
            assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize(
    "wrong", ["a:1,", ",a:1", "a:1,b", "a:1;b:2", ",".join(f"a:{n}" for n in range(1, 70))]
)
def test_a_list_of_addresses_that_is_none_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="KFM_ENDPOINT"):
        Client(wrong)
