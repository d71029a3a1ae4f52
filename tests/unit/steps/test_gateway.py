"""Calls of models from outside of turns: one for all that have its key, and along the chain until the first word."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from kfm_server.models import ModelSpec
from kfm_server.ports.gateway import Answer, KeyTaken
from kfm_server.ports.models import Message, ModelDelta, ModelReply, ModelRequest, ProviderError, TokenUsage
from kfm_server.providers import errors
from kfm_server.steps.gateway import Gateway

pytestmark = pytest.mark.requirement("P2")

FIRST = ModelSpec("first", "x", "f", fallbacks=("second",), input_nanos=10, output_nanos=100)
SECOND = ModelSpec("second", "x", "s", input_nanos=1000, output_nanos=2000)
HELLO = ModelRequest("", (Message("user", "hello"),), key="k")


class Provider:
    """Says a word, waits until the test lets it go on, and then answers, or is cut off."""

    def __init__(self, *, cut: bool = False) -> None:
        self.cut, self.asked = cut, 0
        self.go_on = asyncio.Event()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        self.asked += 1
        yield ModelDelta("text", "Good")
        await self.go_on.wait()
        if self.cut:
            raise errors.cut("r0", TokenUsage(5, 1, known=False))
        yield ModelDelta("text", " day")
        yield ModelReply("Good day", "stop", TokenUsage(3, 4), request_id="r1")


def gateway(first: Provider, second: Provider) -> Gateway:
    known = {"first": (first, FIRST), "second": (second, SECOND)}
    return Gateway(known.__getitem__)  # pyright: ignore[reportArgumentType]


async def told(gate: Gateway, request: ModelRequest = HELLO) -> list[str | Answer]:
    """The pieces of a stream: texts, and the answer."""
    async with aclosing(gate.stream("first", request)) as pieces:
        return [piece.text if isinstance(piece, ModelDelta) else piece async for piece in pieces]


async def test_a_stream_that_meets_a_call_of_its_key_gets_that_ones_reply_in_one_piece() -> None:
    first = Provider()
    gate = gateway(first, Provider())
    async with asyncio.timeout(30), aclosing(gate.stream("first", HELLO)) as leader:
        assert await anext(leader) == ModelDelta("text", "Good")
        streamed = asyncio.ensure_future(told(gate))
        whole = asyncio.ensure_future(gate.generate("first", HELLO))
        await asyncio.sleep(0)
        with pytest.raises(KeyTaken):
            await gate.generate("second", HELLO)
        first.go_on.set()
        *_, answer = [piece async for piece in leader]
        assert await streamed == ["Good day", answer]
        assert await whole == answer == (await told(gate))[-1]
    assert first.asked == 1


async def test_a_stream_that_is_left_leaves_its_key_to_who_comes_next() -> None:
    first = Provider()
    gate = gateway(first, Provider())
    async with asyncio.timeout(30):
        async with aclosing(gate.stream("first", HELLO)) as leader:
            await anext(leader)
            follower = asyncio.ensure_future(told(gate))
            await asyncio.sleep(0)
        first.go_on.set()
        assert (await follower)[:2] == ["Good", " day"]
    assert first.asked == 2


async def test_a_call_that_is_cut_goes_on_to_the_next_model_if_its_caller_was_told_nothing_yet() -> None:
    first, second = Provider(cut=True), Provider()
    first.go_on.set()
    second.go_on.set()
    gate = gateway(first, second)
    async with asyncio.timeout(30):
        answer = await gate.generate("first", HELLO)
        assert (answer.model, answer.usage.cost_nanos) == ("second", 3 * 1000 + 4 * 2000)
        (lost,) = answer.lost
        assert lost.usage is not None and lost.usage.cost_nanos == 5 * 10 + 1 * 100
        with pytest.raises(ProviderError) as caught:
            await told(gate, ModelRequest("", (Message("user", "hi"),)))
    assert caught.value.metadata == {"model": "first", "cost_nanos": "150"}
    assert second.asked == 1
