"""Providers by name: shared where they can be, changed while calls run, and clear about what is not there."""

import asyncio
import json
import sys
from contextlib import aclosing

import pytest
from kfm_server.models import ModelSpec
from kfm_server.ports.models import Message, ModelReply, ModelRequest
from kfm_server.providers.factory import ModelsInvalid, Providers, UnknownModel
from kfm_server.secret import Secret

from tests.support.raw_http import SSE

pytestmark = pytest.mark.requirement("P1")
HELLO = (Message("user", "hello"),)
KEY = Secret("sk-planted-secret-0123456789")


def spec(
    name: str, base_url: str = "http://localhost/v1", key: Secret = KEY, provider: str = "openai"
) -> ModelSpec:
    return ModelSpec(name, provider, f"{name}-large", base_url=base_url, api_key=key)


def test_models_of_one_endpoint_and_key_share_a_provider_and_others_do_not() -> None:
    models = {
        s.name: s for s in (spec("a"), spec("b"), spec("c", key=Secret("other")), spec("d", "http://x/v1"))
    }
    providers = Providers(models)
    made = [providers.get(name)[0].inner for name in models]
    assert made[0] is made[1]
    assert len({id(p) for p in made}) == 3
    assert providers.get("b")[1].model == "b-large"


def test_an_unknown_model_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownModel, match=r"'c'.*a, b"):
        Providers({"a": spec("a"), "b": spec("b")}).get("c")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (spec("a", provider="gpt"), "'gpt'; there are litellm, openai, scripted"),
        (spec("a", "localhost"), "base_url"),
        (ModelSpec("a", "scripted", "m", script="/missing.json"), "/missing.json"),
        (
            ModelSpec("a", "scripted", "m", fallbacks=("b",)),
            "fallbacks names 'b', and that is not configured",
        ),
        (ModelSpec("a", "scripted", "m", fallbacks=("a",)), "fallbacks names 'a', which is itself"),
    ],
)
def test_models_that_cannot_be_used_are_refused_and_the_old_ones_stay(wrong: ModelSpec, said: str) -> None:
    providers = Providers({"old": spec("old")})
    with pytest.raises(ModelsInvalid) as caught:
        providers.reconfigure({"new": spec("new"), "a": wrong})
    assert said in str(caught.value) and str(caught.value).startswith("models.a: ")
    assert KEY.reveal() not in str(caught.value)
    assert providers.get("old")[1].name == "old"


async def test_litellm_is_loaded_before_the_first_call_only_where_a_model_needs_it() -> None:
    await Providers({"a": spec("a")}).warm()
    await Providers({"a": spec("a"), "b": spec("b", provider="litellm")}).warm()
    assert "litellm" in sys.modules


async def test_a_call_under_way_ends_on_the_model_it_began_with() -> None:
    go_on = asyncio.Event()
    chunks = [
        f"data: {json.dumps({'choices': [{'delta': {'content': t}, 'finish_reason': f}]})}\n\n"
        for t, f in (("a", None), ("b", "stop"))
    ]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write((SSE + chunks[0]).encode())
        await go_on.wait()
        writer.write(chunks[1].encode())
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    providers = Providers({"m": spec("m", url)})
    provider, _ = providers.get("m")
    async with aclosing(provider.stream(ModelRequest("m", HELLO, stall_seconds=10))) as items:
        await anext(items)
        providers.reconfigure({"m": spec("m", "http://localhost:1/v1")})
        assert providers.get("m")[0] is not provider
        go_on.set()
        last = [item async for item in items][-1]
    assert isinstance(last, ModelReply) and last.text == "ab"
    await providers.close()
    server.close()
