"""Calls with the same key are one call, whoever leaves, and what is kept of them is bounded."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from kfm_server.ports.gateway import FlightsFull, KeyTaken
from kfm_server.steps.flights import FlightEvent, Flights

from tests.unit.test_breaker import Clock

pytestmark = pytest.mark.requirement("P2")


class Calls:
    """A call that is answered when the test says so."""

    def __init__(self) -> None:
        self.made = 0
        self.began = asyncio.Event()
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.made += 1
        self.began.set()
        return await asyncio.shield(self.answer)


def flights(clock: Clock, told: list[FlightEvent], **bounds: int) -> Flights[str]:
    return Flights(clock, len, lambda event, key: told.append(event), **bounds)  # pyright: ignore[reportArgumentType]


async def fly(flying: Flights[str], key: str, digest: str, call: Callable[[], Awaitable[str]]) -> str:
    """The answer of the key's call, which is this one if there is none yet."""
    async with flying.flight(key, digest) as flight:
        if flight.answer is None:
            flight.answer = await call()
        return flight.answer


def answers(text: str) -> Callable[[], Awaitable[str]]:
    async def call() -> str:
        return text

    return call


async def test_equal_calls_under_way_are_one_and_another_request_is_a_conflict() -> None:
    told: list[FlightEvent] = []
    flying, call = flights(Clock(), told), Calls()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(fly(flying, "k", "d", call)) for _ in range(3)]
        await call.began.wait()
        with pytest.raises(KeyTaken):
            await fly(flying, "k", "other", call)
        call.answer.set_result("yes")
    assert [task.result() for task in tasks] == ["yes"] * 3
    assert call.made == 1
    assert sorted(told) == ["complete", "conflict", "hit", "hit", "start"]


async def test_an_answer_is_kept_for_who_asks_again_and_only_so_long() -> None:
    clock, told = Clock(), list[FlightEvent]()
    flying = flights(clock, told)
    assert await fly(flying, "k", "d", answers("first")) == "first"
    assert await fly(flying, "k", "d", answers("second")) == "first"
    clock.seconds += 60
    assert await fly(flying, "k", "d", answers("third")) == "third"
    assert told == ["start", "complete", "hit", "start", "complete"]


async def test_a_failure_is_everybodys_and_nobodys_who_comes_later() -> None:
    told: list[FlightEvent] = []
    flying, call = flights(Clock(), told), Calls()
    async with asyncio.timeout(30):
        tasks = [asyncio.ensure_future(fly(flying, "k", "d", call)) for _ in range(2)]
        await call.began.wait()
        call.answer.set_exception(ConnectionError("away"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError] * 2 and call.made == 1
    assert await fly(flying, "k", "d", answers("well")) == "well"
    assert told == ["start", "fail", "hit", "start", "complete"]


async def test_a_caller_that_leaves_does_not_take_the_others_with_it() -> None:
    told: list[FlightEvent] = []
    flying, first, second = flights(Clock(), told), Calls(), Calls()
    second.answer.set_result("from the second")
    async with asyncio.timeout(30):
        leader = asyncio.ensure_future(fly(flying, "k", "d", first))
        await first.began.wait()
        follower = asyncio.ensure_future(fly(flying, "k", "d", second))
        await asyncio.sleep(0)
        leader.cancel()
        assert await follower == "from the second"
    assert leader.cancelled() and told == ["start", "fail", "start", "complete"]


async def test_keys_and_bytes_are_bounded_and_what_is_under_way_is_never_dropped() -> None:
    flying, call = flights(Clock(), [], max_flights=2, max_kept_bytes=10), Calls()
    async with asyncio.timeout(30):
        under_way = [asyncio.ensure_future(fly(flying, f"k{n}", "d", call)) for n in range(2)]
        await call.began.wait()
        await asyncio.sleep(0)
        with pytest.raises(FlightsFull):
            await fly(flying, "k9", "d", answers("no"))
        call.answer.set_result("123456")
        await asyncio.gather(*under_way)
    assert await fly(flying, "k0", "d", answers("new")) == "new", "it was dropped for the younger one"
    assert await fly(flying, "k1", "d", answers("new")) == "123456"
