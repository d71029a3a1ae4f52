"""ProviderService over real gRPC: other services use the gateway of the turns, with its fallbacks, breakers and cache."""

import asyncio
import json
from contextlib import aclosing

import pytest
from xenocomm import Client
from xenocomm._gen.errors import ContextOverflow, IdempotencyConflict, InvalidArgument, ModelNotFound
from xenocomm._gen.types import (
    Breaker,
    Finish,
    Prompt,
    PromptMessage,
    PromptRole,
    PromptTool,
    StreamGenerateResponse,
)

from tests.support.model_server import ModelServer

pytestmark = pytest.mark.requirement("P2", "P3")

ANSWER = {"reply": {"text": "Here you are.", "input_tokens": 100, "output_tokens": 10, "chunk_chars": 4}}


async def test_a_reply_comes_whole_and_in_pieces_with_what_it_cost(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(ANSWER)
    reply = await model_live.models.generate("direct", "Hello")
    assert (reply.text, reply.finish, reply.model) == ("Here you are.", Finish.STOP, "direct")
    assert reply.usage is not None and not reply.usage_estimated
    assert reply.usage.cost_nanos == 100 * 1000 + 10 * 2000
    async with aclosing(model_live.models.stream("direct", "Hello")) as stream:
        *pieces, last = [piece async for piece in stream]
    assert "".join(piece.text or "" for piece in pieces) == "Here you are." and len(pieces) > 2
    assert last.reply is not None and last.reply.text == "Here you are."


async def test_tools_and_schemas_are_handed_on_and_calls_of_tools_stream(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play({"reply": {"tools": [{"name": "look", "arguments": {"at": "the sky"}, "id": "c1"}]}})
    prompt = Prompt(
        messages=(
            PromptMessage(role=PromptRole.SYSTEM, text="Look."),
            PromptMessage(role=PromptRole.USER, text="Up"),
        ),
        tools=(PromptTool(name="look", description="looks", input_schema_json='{"type": "object"}'),),
        max_output_tokens=50,
        temperature=0.0,
    )
    pieces: list[StreamGenerateResponse] = []
    async with aclosing(model_live.models.stream("direct", prompt)) as stream:
        pieces += [piece async for piece in stream]
    reply = pieces[-1].reply
    assert reply is not None and reply.finish == Finish.TOOL_CALLS
    assert [(use.id, use.name) for use in reply.tool_uses] == [("c1", "look")]
    assert json.loads("".join(p.tool_arguments or "" for p in pieces)) == {"at": "the sky"}
    sent = model_server.requests()[-1]["body"]
    assert (sent["max_tokens"], sent["temperature"], sent["tools"][0]["function"]["name"]) == (50, 0, "look")


async def test_a_provider_that_fails_is_followed_by_the_next_of_the_chain_within_the_call(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play({"model": "^chained$", "failure": {"kind": "cut", "after_chunks": 0}, **ANSWER}, ANSWER)
    reply = await model_live.models.generate("chained", "Hello")
    assert reply.model == "spare" and reply.usage is not None
    assert reply.usage.cost_nanos == 100 * 30_000 + 10 * 40_000
    (lost,) = reply.failed
    assert lost.model == "chained" and lost.error is not None
    assert lost.error.reason == "REASON_PROVIDER_UNAVAILABLE"
    assert model_server.count() == 2


async def test_what_nobody_can_answer_is_the_providers_failure_in_our_words(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play({"failure": {"kind": "context_overflow"}})
    with pytest.raises(ContextOverflow) as caught:
        await model_live.models.generate("chained", "Hello")
    assert model_server.count() == 2 and caught.value.metadata["model"] == "spare"


async def test_calls_with_the_same_key_are_one_call_and_another_request_is_a_conflict(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play({"reply": {"text": "Once.", "delay_ms": 100, "chunks": 2}})
    replies = await asyncio.gather(
        *(model_live.models.generate("direct", "Hello", idempotency_key="one-key") for _ in range(4))
    )
    later = await model_live.models.generate("direct", "Hello", idempotency_key="one-key")
    async with aclosing(model_live.models.stream("direct", "Hello", idempotency_key="one-key")) as stream:
        assert [piece.text or piece.reply for piece in [p async for p in stream]] == ["Once.", later]
    assert {reply.text for reply in (*replies, later)} == {"Once."} and model_server.count() == 1
    with pytest.raises(IdempotencyConflict):
        await model_live.models.generate("direct", "Hallo", idempotency_key="one-key")


async def test_an_equal_call_comes_from_memory_where_the_model_says_so(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(ANSWER)
    first = await model_live.models.generate("kept", "Hello from a service")
    again = await model_live.models.generate("kept", "Hello from a service")
    assert (first.cached, again.cached, model_server.count()) == (False, True, 1)
    assert again.usage is not None and again.usage.cost_nanos == again.usage.model_calls == 0


async def test_texts_become_vectors(model_live: Client, model_server: ModelServer) -> None:
    model_server.play({"call": "embed", "reply": {"dimensions": 5}})
    found = await model_live.models.embed("direct", ["one", "two"])
    assert [len(vector.values) for vector in found.vectors] == [5, 5]
    assert found.usage is not None and found.usage.input_tokens > 0


async def test_models_are_listed_with_the_state_of_their_breakers_and_without_their_keys(
    model_live: Client,
) -> None:
    listed = {model.name: model for model in await model_live.models.list()}
    assert listed["chained"].fallbacks == ("spare",)
    assert listed["spare"].breaker == Breaker.CLOSED and listed["spare"].context_tokens == 500_000
    assert "key-of-the-stub" not in repr(listed) and "http://" not in repr(listed)


async def test_a_model_that_is_not_configured_is_told_with_those_that_are(model_live: Client) -> None:
    with pytest.raises(ModelNotFound, match=r"There is no model 'nobody'; configured: .*direct"):
        await model_live.models.generate("nobody", "Hello")


@pytest.mark.parametrize(
    ("model", "prompt", "error"),
    [
        ("nobody", "Hello", ModelNotFound),
        ("direct", Prompt(), InvalidArgument),
        ("direct", Prompt(messages=(PromptMessage(text="who?"),)), InvalidArgument),
        (
            "direct",
            Prompt(messages=(PromptMessage(role=PromptRole.USER),), output_schema_json="[1"),
            InvalidArgument,
        ),
    ],
    ids=["no such model", "no message", "no role", "no schema"],
)
async def test_what_cannot_be_asked_is_refused_and_nobody_is_asked(
    model: str, prompt: Prompt | str, error: type[Exception], model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(ANSWER)
    with pytest.raises(error):
        await model_live.models.generate(model, prompt)
    assert model_server.count() == 0
