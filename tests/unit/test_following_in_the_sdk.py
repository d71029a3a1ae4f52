"""How long the SDK's follower keeps coming back."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from xenocomm._gen.errors import Unavailable
from xenocomm._gen.pool import pb
from xenocomm.connection import Connection
from xenocomm.follow import Follower
from xenocomm.transport import Options, Stream, Transport

Answer = Callable[[Any, int], None]


class Answers(Stream):
    """A stream of one response."""

    def __init__(self, transport: Transport, response: Any) -> None:
        super().__init__(transport, None)
        self._response = response

    async def read(self) -> Any:
        """The response."""
        return self._response

    def cancel(self) -> None:
        """Nothing is open."""


class Server(Transport):
    """A transport to a server that answers each stream with one response."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(Connection("nowhere"), Options(1, 1))
        self.connection.connected = True
        self.opened = 0
        self._answer = answer

    def stream(self, rpc: str, fields: Any) -> Stream:
        """The next answer."""
        self.opened += 1
        response = pb("kfm.turn.v1.WatchTurnResponse")()
        self._answer(response, self.opened)
        return Answers(self, response)


class Time:
    """A clock that only pauses move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.pauses: list[float] = []
        for reader in ("follow", "reconnecting"):
            monkeypatch.setattr(f"xenocomm.{reader}.time", SimpleNamespace(monotonic=lambda: self.now))
        slept = SimpleNamespace(timeout=asyncio.timeout, sleep=self.sleep)
        monkeypatch.setattr("xenocomm.follow.asyncio", slept)

    async def sleep(self, seconds: float) -> None:
        """Pass at once."""
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def reconnect(response: Any, number: int) -> None:
    """Come back."""
    response.updates.add().reconnect.reason = "moved"


async def read_all(server: Server) -> list[int]:
    async with asyncio.timeout(10):
        return [
            update.event.sequence if update.event else 0
            async for update in Follower(server, "turn_1").updates()
        ]


@pytest.mark.requirement("E5")
async def test_a_server_that_only_asks_to_reconnect_is_given_up_after_two_minutes_and_ever_longer_pauses(
    clock: Time,
) -> None:
    server = Server(reconnect)
    with pytest.raises(Unavailable, match="keeps asking"):
        await read_all(server)
    assert 120 < sum(clock.pauses) < 125
    assert clock.pauses[0] <= 0.1 and min(clock.pauses[10:]) >= 1.0


@pytest.mark.requirement("E5")
async def test_whoever_hears_something_between_reconnects_is_never_given_up(clock: Time) -> None:
    def answer(response: Any, number: int) -> None:
        if number % 5 == 0:
            response.updates.add().gap.step_key = "s1"
        reconnect(response, number)

    server = Server(answer)
    heard = 0
    async for _ in Follower(server, "turn_1").updates():
        heard += 1
        if heard == 100:
            break
    assert heard == 100 and sum(clock.pauses) > 120
    assert max(clock.pauses) <= 1.6


@pytest.mark.requirement("E5")
async def test_a_quiet_turn_survives_any_number_of_reconnects_from_streams_that_stood(clock: Time) -> None:
    def answer(response: Any, number: int) -> None:
        clock.now += 3600
        if number == 20:
            raise LookupError("enough")
        reconnect(response, number)

    with pytest.raises(LookupError):
        await read_all(Server(answer))
