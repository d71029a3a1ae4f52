"""One suite for providers of models: scripted, direct over HTTP, through LiteLLM. The same script, the same results."""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from kfm_server.models import ModelSpec
from kfm_server.ports.models import (
    Message,
    ModelDelta,
    ModelProvider,
    ModelReply,
    ModelRequest,
    ProviderError,
    TokenUsage,
    ToolDefinition,
    ToolUse,
)
from kfm_server.providers import errors
from kfm_server.providers.collect import BYTES_PER_TOKEN, OVERRUN_BYTES, YIELD_EVERY
from kfm_server.providers.factory import Providers
from kfm_server.providers.guard import GuardedProvider
from kfm_server.providers.scripted import ScriptedProvider
from kfm_server.providers.scripts import parse_script
from kfm_server.secret import Secret

from tests.support.model_server import ModelServer

pytestmark = [pytest.mark.requirement("P1", "P3")]

KEY = "sk-planted-secret-0123456789"
TOOLS = (
    ToolDefinition(
        "calculator", "computes", {"type": "object", "properties": {"expression": {"type": "string"}}}
    ),
    ToolDefinition("todo_store", "keeps", {"type": "object", "allOf": [{"required": ["action"]}]}),
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server() -> Generator[ModelServer]:
    live = ModelServer(KEY)
    live.start()
    yield live
    live.stop()


class Kit:
    """A provider and the script that it plays."""

    def __init__(self, kind: str, provider: ModelProvider, model: str, server: ModelServer | None) -> None:
        self.kind, self.provider, self.model, self.server = kind, provider, model, server

    @property
    def embedder(self) -> str:
        """The model that embeds."""
        if self.kind in ("claude", "llama"):
            pytest.skip("Anthropic has none; Ollama's: tests/unit/providers/test_litellm.py")
        return self.model

    def play(self, *rules: dict[str, Any]) -> None:
        if self.server is not None:
            self.server.play(*rules)
        else:
            assert isinstance(self.provider, GuardedProvider)
            assert isinstance(self.provider.inner, ScriptedProvider)
            self.provider.inner.player.reset(parse_script({"rules": list(rules)}))

    def request(self, text: str = "hello", **more: Any) -> ModelRequest:
        more.setdefault("messages", (Message("system", "be brief"), Message("user", text)))
        return ModelRequest(self.model, **more)

    async def streamed(self, request: ModelRequest) -> tuple[list[ModelDelta], ModelReply]:
        """The deltas and the last item of a stream."""
        items = [item async for item in self.provider.stream(request)]
        assert isinstance(items[-1], ModelReply)
        return [item for item in items[:-1] if isinstance(item, ModelDelta)], items[-1]

    async def both(self, request: ModelRequest) -> ModelReply:
        """The reply, which is the same whole and streamed."""
        whole = await self.provider.generate(request)
        deltas, last = await self.streamed(request)
        if self.kind == "llama":  # which gives its calls no ids
            uses = [use.id for use in whole.tool_uses]
            last = replace(
                last, tool_uses=tuple(replace(u, id=i) for u, i in zip(last.tool_uses, uses, strict=True))
            )
        assert replace(last, request_id="") == replace(whole, request_id="")
        for kind, text in (("text", whole.text), ("reasoning", whole.reasoning)):
            assert "".join(d.text for d in deltas if d.kind == kind) == text
        return whole

    async def failed(self, rule: dict[str, Any], *, stream: bool) -> ProviderError:
        """How a call fails, which asks the server once."""
        self.play(rule)
        request = self.request(stall_seconds=0.5 if rule["failure"]["kind"] == "stall" else 30.0)
        with pytest.raises(ProviderError) as caught:
            if stream:
                await self.streamed(request)
            else:
                await self.provider.generate(request)
        if self.server is not None:
            assert self.server.count() == 1
        for shown in (str(caught.value), repr(caught.value)):
            assert KEY not in shown
        return caught.value


SPOKEN = {
    "openai": ("openai", "small", "/v1"),
    "litellm": ("litellm", "openai/small", "/v1"),
    "claude": ("litellm", "anthropic/claude-sonnet-4-5", ""),
    "llama": ("litellm", "ollama_chat/llama3", ""),
}
"""Adapters behind HTTP, by their name in these tests: provider, model, and where the endpoint begins."""


@pytest.fixture(params=["scripted", *SPOKEN])
async def kit(request: pytest.FixtureRequest, server: ModelServer) -> AsyncGenerator[Kit]:
    remote = request.param != "scripted"
    provider, model, path = SPOKEN.get(request.param, ("scripted", "small", ""))
    spec = ModelSpec(
        name="m",
        provider=provider,
        model=model,
        base_url=server.url.removesuffix("/v1") + path if remote else "",
        api_key=Secret(KEY),
        script="demo",
    )
    providers = Providers({"m": spec})
    provider, _ = providers.get("m")
    yield Kit(request.param, provider, spec.model, server if remote else None)
    await providers.close()


async def test_a_text_with_reasoning_comes_whole_and_in_pieces(kit: Kit) -> None:
    kit.play(
        {
            "reply": {
                "text": "You said {{last_user}}, ünïcode ✓.",
                "reasoning": "Easy.",
                "input_tokens": 7,
                "output_tokens": 9,
            }
        }
    )
    reply = await kit.both(kit.request("hi"))
    assert (reply.text, reply.reasoning) == ("You said hi, ünïcode ✓.", "Easy.")
    assert (reply.finish, reply.usage) == ("stop", TokenUsage(7, 9))
    assert reply.request_id and reply.model


async def test_parallel_tool_calls_come_with_their_arguments_and_ids(kit: Kit) -> None:
    kit.play(
        {
            "reply": {
                "tools": [
                    {"name": "calculator", "arguments": {"expression": "17 * 3"}, "id": "a"},
                    {"name": "todo_store", "arguments": {"action": "list"}, "id": "b"},
                ]
            }
        }
    )
    reply = await kit.both(kit.request(tools=TOOLS))
    assert reply.finish == "tool_calls"
    told = [(use.name, json.loads(use.arguments_json)) for use in reply.tool_uses]
    assert told == [("calculator", {"expression": "17 * 3"}), ("todo_store", {"action": "list"})]
    if kit.kind != "llama":
        assert [use.id for use in reply.tool_uses] == ["a", "b"]
    deltas, _ = await kit.streamed(kit.request(tools=TOOLS))
    arguments = "".join(d.text for d in deltas if d.kind == "tool_arguments")
    assert arguments == '{"expression": "17 * 3"}{"action": "list"}'


async def test_a_conversation_goes_on_with_the_results_of_its_tools(kit: Kit) -> None:
    kit.play({"step": 1, "reply": {"text": "{{results}} / {{last_tool}}"}})
    messages = (
        Message("user", "compute"),
        Message("assistant", "", (ToolUse("a", "calculator", "{}"), ToolUse("b", "calculator", "not json"))),
        Message("tool", '{"text": "one"}', tool_use_id="a"),
        Message("tool", "two", tool_use_id="b"),
    )
    reply = await kit.both(kit.request(messages=messages, tools=TOOLS))
    assert reply.text == "one two / two"


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("", "")])
async def test_tool_calls_with_the_same_id_or_none_get_ids_of_their_own(
    kit: Kit, first: str, second: str
) -> None:
    tools = [
        {"name": "calculator", "arguments": {"expression": "1"}, "id": first},
        {"name": "calculator", "arguments": {"expression": "2"}, "id": second},
    ]
    kit.play({"reply": {"tools": tools}})
    reply = await kit.both(kit.request(tools=TOOLS))
    ids = [use.id for use in reply.tool_uses]
    assert all(ids) and len(set(ids)) == 2
    assert [json.loads(use.arguments_json)["expression"] for use in reply.tool_uses] == ["1", "2"]


async def test_arguments_that_are_no_json_come_as_the_model_wrote_them(kit: Kit) -> None:
    if kit.kind == "llama":
        pytest.skip("Ollama reads the arguments itself")
    kit.play({"reply": {"tools": [{"name": "calculator", "raw": '{"expression": oops', "id": "a"}]}})
    if kit.kind == "claude":  # only a stream can bring them
        _, reply = await kit.streamed(kit.request(tools=TOOLS))
    else:
        reply = await kit.both(kit.request(tools=TOOLS))
    assert reply.tool_uses == (ToolUse("a", "calculator", '{"expression": oops'),)


async def test_a_schema_is_asked_for(kit: Kit) -> None:
    kit.play({"schema": True, "reply": {"fit_schema": True}}, {"reply": {"text": "no schema"}})
    assert (await kit.both(kit.request(output_schema=SCHEMA))).text == '{"city": "text", "degrees": 0}'
    open_schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert (await kit.both(kit.request(output_schema=open_schema))).text == "{}"
    assert (await kit.both(kit.request())).text == "no schema"


async def test_the_ends_of_a_reply_are_normalised(kit: Kit) -> None:
    kit.play({"reply": {"text": "cut off he", "finish": "length"}})
    assert (await kit.both(kit.request(max_output_tokens=3))).finish == "length"
    if kit.kind == "llama":
        return  # it has no filter, and its refusals are texts
    kit.play({"reply": {"text": "so far", "finish": "content_filter"}})
    assert (await kit.both(kit.request())).finish == "refused"
    kit.play({"reply": {"refusal": "I will not."}})
    reply = await kit.provider.generate(kit.request())
    assert (reply.finish, reply.text) == ("refused", "I will not.")
    _, streamed = await kit.streamed(kit.request())
    assert streamed.finish == "refused"
    if kit.kind != "litellm":  # which loses the words
        assert streamed.text == "I will not."


async def test_usage_that_is_not_reported_is_estimated_and_says_so(kit: Kit) -> None:
    kit.play({"reply": {"text": "x" * 400, "usage": False}})
    _, reply = await kit.streamed(kit.request())
    assert not reply.usage.known
    assert reply.usage.output_tokens == 100 and reply.usage.input_tokens > 0
    assert (await kit.provider.generate(kit.request())).usage == reply.usage


FAILURES = [
    ({"kind": "status", "status": 429, "retry_after": "3"}, "REASON_PROVIDER_RATE_LIMITED", True),
    ({"kind": "status", "status": 429, "code": "insufficient_quota"}, "REASON_PROVIDER_REJECTED", False),
    ({"kind": "status", "status": 500}, "REASON_PROVIDER_UNAVAILABLE", True),
    ({"kind": "status", "status": 503, "retry_after": "3"}, "REASON_PROVIDER_UNAVAILABLE", True),
    ({"kind": "status", "status": 401, "message": f"wrong key {KEY}"}, "REASON_PROVIDER_REJECTED", False),
    ({"kind": "status", "status": 403, "message": f"wrong key {KEY}"}, "REASON_PROVIDER_REJECTED", False),
    ({"kind": "status", "status": 404, "message": f"no model, {KEY}"}, "REASON_PROVIDER_REJECTED", False),
    ({"kind": "status", "status": 400, "message": f"bad, {KEY}"}, "REASON_PROVIDER_REJECTED", False),
    ({"kind": "context_overflow"}, "REASON_CONTEXT_OVERFLOW", False),
    ({"kind": "content_filter"}, "REASON_CONTENT_REFUSED", False),
    ({"kind": "cut"}, "REASON_PROVIDER_UNAVAILABLE", True),
    ({"kind": "stall"}, "REASON_PROVIDER_UNAVAILABLE", True),
    ({"kind": "bad_json"}, "REASON_MODEL_REPLY_INVALID", True),
    ({"kind": "wrong_type"}, "REASON_MODEL_REPLY_INVALID", True),
    ({"kind": "empty"}, "REASON_MODEL_REPLY_INVALID", True),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("failure", "reason", "retryable"),
    FAILURES,
    ids=[f"{f['kind']}-{f.get('status', '')}" for f, _, _ in FAILURES],
)
async def test_a_failure_ends_as_the_error_model_says_and_is_asked_once(
    kit: Kit, failure: dict[str, Any], reason: str, retryable: bool, stream: bool
) -> None:
    if kit.kind == "llama" and (failure["kind"] == "content_filter" or failure.get("code")):
        pytest.skip("Ollama has neither a filter nor a quota")
    error = await kit.failed({"failure": failure}, stream=stream)
    assert (error.reason, error.retryable) == (reason, retryable)
    if reason == "REASON_MODEL_REPLY_INVALID":
        assert str(error) == str(errors.unreadable()), "every adapter says the same"
    if kit.server is not None and failure["kind"] == "stall":
        await kit.server.await_ended("left")
    assert error.retry_after_ms == (3000 if failure.get("retry_after") else 0)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "REASON_PROVIDER_UNAVAILABLE"),
        ("stall", "REASON_PROVIDER_UNAVAILABLE"),
        ("error_event", "REASON_PROVIDER_UNAVAILABLE"),
        ("bad_json", "REASON_MODEL_REPLY_INVALID"),
    ],
)
async def test_a_stream_that_fails_midway_tells_what_it_has_cost(kit: Kit, kind: str, reason: str) -> None:
    rule = {"reply": {"text": "x" * 80}, "failure": {"kind": kind, "after_chunks": 3}}
    error = await kit.failed(rule, stream=True)
    if kind == "bad_json" and kit.kind in ("claude", "llama"):
        reason = (
            "REASON_PROVIDER_UNAVAILABLE"  # LiteLLM skips what it cannot read, and then nothing more came
        )
    assert (error.reason, error.retryable) == (reason, True)
    assert error.usage is not None
    assert (error.usage.output_tokens, error.usage.known) == (6, False)


async def test_a_failure_may_pass_and_the_retry_gets_the_reply(kit: Kit) -> None:
    kit.play({"reply": {"text": "at last"}, "failure": {"kind": "status", "status": 500, "first": 2}})
    for _ in range(2):
        with pytest.raises(ProviderError):
            await kit.provider.generate(kit.request())
    assert (await kit.provider.generate(kit.request())).text == "at last"


async def test_an_answer_of_a_hundred_thousand_tokens_comes_whole(kit: Kit) -> None:
    kit.play({"reply": {"text": "word ", "repeat": 100_000, "chunk_chars": 500}})
    _, reply = await kit.streamed(kit.request())
    assert reply.text == "word " * 100_000
    assert reply.usage == TokenUsage(reply.usage.input_tokens, 125_000)


async def test_everything_else_runs_while_a_long_answer_comes(kit: Kit) -> None:
    kit.play({"reply": {"text": "0123456789abcdef", "repeat": 400}})
    turns = deltas = seen = at_once = most = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(other())
    try:
        async with aclosing(kit.provider.stream(kit.request())) as items:
            async for _ in items:
                deltas += 1
                at_once = at_once + 1 if turns == seen else 1
                seen, most = turns, max(most, at_once)
    finally:
        running.cancel()
    assert deltas > 800 and most <= YIELD_EVERY + 1, f"{most} pieces came while nothing else ran"


async def test_an_answer_far_beyond_its_bound_is_left_and_ends_as_one_of_that_length(kit: Kit) -> None:
    kit.play({"reply": {"text": "0123456789abcdef", "repeat": 1_500_000, "chunk_chars": 1000}})
    _, reply = await kit.streamed(kit.request(max_output_tokens=100))
    bound = 100 * BYTES_PER_TOKEN + OVERRUN_BYTES
    assert reply.finish == "length" and bound < len(reply.text) <= bound + 1000
    assert not reply.usage.known and reply.usage.output_tokens == (len(reply.text) + 3) // 4
    if kit.server is not None:
        await kit.server.await_ended("left")


async def test_leaving_a_stream_closes_its_connection(kit: Kit) -> None:
    kit.play({"reply": {"text": "x" * 80}, "failure": {"kind": "stall", "after_chunks": 2}})
    async with aclosing(kit.provider.stream(kit.request())) as items:
        async for _ in items:
            break
    if kit.server is not None:
        await kit.server.await_ended("left")


async def test_the_key_of_a_call_and_its_trace_go_with_it(kit: Kit) -> None:
    kit.play({"reply": {"text": "ok"}})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await kit.both(kit.request(key="step-1", traceparent=trace, temperature=0.5))
    for entry in kit.server.requests() if kit.server else ():
        assert (entry["idempotency_key"], entry["traceparent"]) == ("step-1", trace)
        body = entry["body"]
        assert body.get("options", body)["temperature"] == 0.5


async def test_texts_become_vectors_in_their_order(kit: Kit) -> None:
    kit.play({"call": "embed", "reply": {"dimensions": 16}})
    found = await kit.provider.embed(kit.embedder, ["one", "two", "one"])
    assert [len(v) for v in found.vectors] == [16, 16, 16]
    assert found.vectors[0] == pytest.approx(found.vectors[2]) != found.vectors[1]
    assert found.usage == TokenUsage(3, 0)


async def test_embedding_fails_as_generating_does(kit: Kit) -> None:
    kit.play({"call": "embed", "failure": {"kind": "status", "status": 429, "retry_after": "3"}})
    with pytest.raises(ProviderError) as caught:
        await kit.provider.embed(kit.embedder, ["one"])
    assert (caught.value.reason, caught.value.retry_after_ms) == ("REASON_PROVIDER_RATE_LIMITED", 3000)
    assert kit.server is None or kit.server.count() == 1
