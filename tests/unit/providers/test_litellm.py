"""Other providers through LiteLLM: their dialects arrive as ours, and each call is one request."""

import json
import sys
from typing import Any

import pytest
from kfm_server.ports.models import (
    Message,
    ModelReply,
    ModelRequest,
    ProviderError,
    TokenUsage,
    ToolDefinition,
    ToolUse,
)
from kfm_server.providers import litellm_adapter
from kfm_server.providers.litellm_adapter import LiteLLMProvider
from kfm_server.secret import Secret

from tests.support.raw_http import RawServer, events, raw_server, whole

pytestmark = pytest.mark.requirement("P1", "P3")
KEY = Secret("sk-planted-secret-0123456789")
TOOLS = (ToolDefinition("f", "does it", {"type": "object", "properties": {"x": {"type": "integer"}}}),)
TALK = (
    Message("system", "be brief"),
    Message("user", "hello"),
    Message("assistant", "", (ToolUse("t0", "f", "not json"),)),
    Message("tool", "wrong arguments", tool_use_id="t0"),
)
CLAUDE = "anthropic/claude-sonnet-4-5"
LLAMA = "ollama_chat/llama3"
ANTHROPIC = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Let me see."}, {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 3, "output_tokens": 4},
}  # fmt: skip
ANTHROPIC_STREAM = (
    {"type": "message_start", "message": {**ANTHROPIC, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " see."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t1", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"x"'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop"},
)  # fmt: skip
OLLAMA = {
    "model": "llama3",
    "created_at": "2026-11-21T10:00:00Z",
    "message": {"role": "assistant", "content": "Hello."},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 3,
    "eval_count": 4,
}


def provider(raw: RawServer) -> LiteLLMProvider:
    return LiteLLMProvider(raw.url.removesuffix("/v1"), KEY)


def sent(raw: RawServer) -> Any:
    (request,) = raw.requests
    return json.loads(request.split(b"\r\n\r\n", 1)[1])


async def test_claude_is_asked_and_read_in_its_own_dialect() -> None:
    async with raw_server(whole(json.dumps(ANTHROPIC))) as raw:
        reply = await provider(raw).generate(ModelRequest(CLAUDE, TALK, TOOLS, max_output_tokens=9))
        assert sent(raw)["max_tokens"] == 9
    assert (reply.text, reply.finish, reply.usage) == ("Let me see.", "tool_calls", TokenUsage(3, 4))
    (use,) = reply.tool_uses
    assert (use.id, use.name, json.loads(use.arguments_json)) == ("t1", "f", {"x": 1})


async def test_claude_streams_its_text_and_its_tool_calls() -> None:
    pieces = events(*map(json.dumps, ANTHROPIC_STREAM))
    async with raw_server(pieces) as raw:
        items = [i async for i in provider(raw).stream(ModelRequest(CLAUDE, TALK, TOOLS))]
        assert sent(raw)["stream"] is True
    reply = items.pop()
    assert isinstance(reply, ModelReply)
    assert (reply.text, reply.finish, reply.usage) == ("Let me see.", "tool_calls", TokenUsage(3, 4))
    assert [(u.id, u.name, json.loads(u.arguments_json)) for u in reply.tool_uses] == [("t1", "f", {"x": 1})]
    assert "".join(i.text for i in items if not isinstance(i, ModelReply) and i.kind == "text") == reply.text


async def test_llama_is_asked_and_read_in_its_own_dialect() -> None:
    async with raw_server(whole(json.dumps(OLLAMA))) as raw:
        reply = await provider(raw).generate(ModelRequest(LLAMA, TALK[:2], max_output_tokens=9))
        assert sent(raw)["options"]["num_predict"] == 9
    assert (reply.text, reply.finish, reply.usage) == ("Hello.", "stop", TokenUsage(3, 4))


async def test_a_provider_without_embeddings_is_told_and_not_asked() -> None:
    async with raw_server(whole("{}")) as raw:
        with pytest.raises(ProviderError, match=f"no embeddings for {CLAUDE}") as caught:
            await provider(raw).embed(CLAUDE, ["one"])
    assert not raw.requests and not caught.value.retryable


async def test_llama_embeds() -> None:
    body = {"model": "nomic", "embeddings": [[0.0, 1.0], [1.0, 0.0]], "prompt_eval_count": 7}
    async with raw_server(whole(json.dumps(body))) as raw:
        found = await provider(raw).embed("ollama/nomic", ["one", "two"])
        assert sent(raw)["input"] == ["one", "two"]
    assert (found.vectors, found.usage.input_tokens) == (((0.0, 1.0), (1.0, 0.0)), 7)


@pytest.mark.parametrize(
    ("status", "kind", "said", "reason"),
    [
        ("529 Overloaded", "overloaded_error", "Overloaded", "REASON_PROVIDER_UNAVAILABLE"),
        ("429 Too Many Requests", "rate_limit_error", "slow down", "REASON_PROVIDER_RATE_LIMITED"),
        ("400 Bad Request", "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum", "REASON_CONTEXT_OVERFLOW"),
        ("400 Bad Request", "invalid_request_error", "no such thing", "REASON_PROVIDER_REJECTED"),
        ("401 Unauthorized", "authentication_error", f"bad key {KEY.reveal()}", "REASON_PROVIDER_REJECTED"),
        ("500 Internal Server Error", "api_error", f"broke on {KEY.reveal()}", "REASON_PROVIDER_UNAVAILABLE"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_claudes_failures_are_ours_and_it_is_asked_once(
    status: str, kind: str, said: str, reason: str, stream: bool
) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": said}})
    async with raw_server(whole(body, status=status, headers="Date: x\r\nRetry-After: 2\r\n")) as raw:
        with pytest.raises(ProviderError) as caught:
            if stream:
                _ = [item async for item in provider(raw).stream(ModelRequest(CLAUDE, TALK[:2]))]
            else:
                await provider(raw).generate(ModelRequest(CLAUDE, TALK[:2]))
        assert len(raw.requests) == 1
    assert caught.value.reason == reason
    assert KEY.reveal() not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("body", ["null", '{"choices": []}', '{"choices": [{"message": null}]}'])
async def test_json_of_another_form_cannot_be_read(body: str) -> None:
    async with raw_server(whole(body)) as raw:
        with pytest.raises(ProviderError) as caught:
            await LiteLLMProvider(raw.url, KEY).generate(ModelRequest("openai/m", TALK[:2]))
    assert (caught.value.reason, caught.value.retryable) == ("REASON_MODEL_REPLY_INVALID", True)


@pytest.mark.parametrize("rows", ["null", "[]", '[{"index": 0}]', '[{"index": 0, "embedding": ["x"]}]'])
async def test_embeddings_of_another_form_cannot_be_read(rows: str) -> None:
    async with raw_server(whole(f'{{"data": {rows}}}')) as raw:
        with pytest.raises(ProviderError) as caught:
            await LiteLLMProvider(raw.url, KEY).embed("openai/m", ["one"])
    assert (caught.value.reason, caught.value.retryable) == ("REASON_MODEL_REPLY_INVALID", True)


async def test_without_litellm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    monkeypatch.setattr(litellm_adapter, "_ready", type(litellm_adapter._ready)())  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(ProviderError, match=r"kfm-server\[litellm\]") as caught:
        await LiteLLMProvider().generate(ModelRequest("openai/m", TALK[:2]))
    assert not caught.value.retryable


async def test_a_key_of_the_environment_is_not_sent_to_somebody_elses_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY.reveal())
    body = {"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}
    async with raw_server(whole(json.dumps(body))) as raw:
        await LiteLLMProvider(raw.url).generate(ModelRequest("openai/m", TALK[:2]))
        assert KEY.reveal().encode() not in raw.requests[0]
