"""The direct adapter against what servers really send: dialects, bounds, broken connections."""

import json
from typing import Any

import pytest
from kfm_server.ports.models import Message, ModelReply, ModelRequest, ProviderError, TokenUsage
from kfm_server.providers.openai_http import OpenAIProvider
from kfm_server.providers.sse import MAX_LINE_BYTES
from kfm_server.secret import Secret

from tests.support.raw_http import RawServer, events, raw_server, whole

pytestmark = pytest.mark.requirement("P3")
KEY = "sk-planted-secret-0123456789"
HELLO = ModelRequest("small", (Message("user", "hello"),), stall_seconds=5)


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more})


def call(index: int | None, id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    made: dict[str, Any] = {"function": function}
    return made | ({} if index is None else {"index": index}) | ({} if id is None else {"id": id})


async def streamed(raw: RawServer, request: ModelRequest = HELLO) -> ModelReply:
    provider = OpenAIProvider(raw.url, Secret(KEY))
    try:
        items = [item async for item in provider.stream(request)]
    finally:
        await provider.close()
    assert isinstance(items[-1], ModelReply)
    return items[-1]


async def failed(raw: RawServer) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await streamed(raw)
    assert KEY not in f"{caught.value} {caught.value!r}"
    return caught.value


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
async def test_a_stream_may_come_byte_by_byte_with_comments_and_either_line_end(end: str) -> None:
    data = (chunk({"content": "é✓"}), chunk({"content": "!"}), chunk({}, "stop"), "[DONE]")
    head, *body = events(*data, end=end)
    text = b": keep-alive" + end.encode() + b"".join(body)
    async with raw_server([head, *(text[i : i + 1] for i in range(len(text)))]) as raw:
        assert (await streamed(raw)).text == "é✓!"


@pytest.mark.parametrize("last", [[], ["[DONE]"]], ids=["no end", "done without an empty line"])
async def test_a_stream_ends_at_its_finish_reason_whatever_comes_after(last: list[str]) -> None:
    pieces = events(chunk({"content": "all"}), chunk({}, "stop"), *last)
    async with raw_server([*pieces[:-1], pieces[-1].rstrip()]) as raw:
        assert (await streamed(raw)).text == "all"


async def test_a_stream_without_a_finish_reason_was_cut() -> None:
    async with raw_server(events(chunk({"content": "half"}), "[DONE]")) as raw:
        error = await failed(raw)
    assert (error.reason, error.retryable) == ("REASON_PROVIDER_UNAVAILABLE", True)
    assert error.usage is not None and not error.usage.known


@pytest.mark.parametrize(
    "calls",
    [
        [call(0, "a", "f", '{"x":'), call(0, None, None, "1}"), call(1, "b", "g", "{}")],
        [call(None, "a", "f", '{"x":1}'), call(None, "b", "g", "{}")],
        [call(0, "a", "f", '{"x":1}'), call(0, "b", "g", "{}")],
        [call(0, "a", "f", '{"x":'), call(0, "a", None, "1}"), call(1, "b", "g", None)],
        [call(0, "a", "f", {"x": 1}), call(1, "b", "g", {})],
    ],
    ids=["by index", "no index", "one index for all", "id again, no arguments", "arguments as an object"],
)
async def test_tool_calls_of_every_dialect_are_the_same(calls: list[dict[str, Any]]) -> None:
    pieces = [chunk({"tool_calls": [one]}) for one in calls]
    async with raw_server(events(*pieces, chunk({}, "stop"))) as raw:
        reply = await streamed(raw)
    assert [(u.id, u.name, u.arguments_json) for u in reply.tool_uses] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "{}"),
    ]
    assert reply.finish == "tool_calls"


async def test_reasoning_under_its_other_name_usage_and_ids_are_read() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 6}
    pieces = events(
        chunk({"reasoning": "hmm"}, id="chatcmpl-1", model="small-2"),
        chunk({}, "stop"),
        json.dumps({"choices": [], "usage": usage}),
        "[DONE]",
    )
    async with raw_server(pieces) as raw:
        reply = await streamed(raw)
    assert (reply.reasoning, reply.usage) == ("hmm", TokenUsage(5, 6))
    assert (reply.request_id, reply.model) == ("chatcmpl-1", "small-2")


async def test_a_server_that_does_not_stream_is_understood() -> None:
    body = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}
    async with raw_server(whole(json.dumps(body))) as raw:
        assert (await streamed(raw)).text == "whole"


@pytest.mark.parametrize(
    "body", ["null", "[]", '{"choices": []}', '{"choices": [{"message": null}]}', "1", '"x"']
)
async def test_json_of_another_form_cannot_be_read(body: str) -> None:
    async with raw_server(whole(body)) as raw:
        assert (await failed(raw)).reason == "REASON_MODEL_REPLY_INVALID"


@pytest.mark.parametrize(
    "rows",
    [
        "null",
        "[]",
        '[{"index": 0}]',
        '[{"index": 1, "embedding": [1]}]',
        '[{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]',
    ],
)
async def test_embeddings_that_are_not_one_for_each_text_cannot_be_read(rows: str) -> None:
    async with raw_server(whole(f'{{"data": {rows}}}')) as raw:
        provider = OpenAIProvider(raw.url)
        with pytest.raises(ProviderError) as caught:
            await provider.embed("small", ["one"])
        await provider.close()
    assert (caught.value.reason, caught.value.retryable) == ("REASON_MODEL_REPLY_INVALID", True)


async def test_a_line_over_the_bound_ends_the_call() -> None:
    filler = b"x" * 65536
    async with raw_server([*events()[:1], *([filler] * (MAX_LINE_BYTES // 65536 + 1))]) as raw:
        error = await failed(raw)
    assert (error.reason, error.retryable) == ("REASON_MODEL_REPLY_INVALID", False)
    assert error.metadata == {"limit": "max_line_bytes", "max": str(MAX_LINE_BYTES)}


async def test_a_redirect_is_not_followed() -> None:
    async with raw_server(whole("{}", status="307 Temporary Redirect", headers="Location: /v2\r\n")) as raw:
        assert (await failed(raw)).reason == "REASON_PROVIDER_REJECTED"
        assert len(raw.requests) == 1


async def test_what_a_server_says_is_told_without_the_key() -> None:
    body = json.dumps({"error": {"message": f"Bearer {KEY} and token {KEY} and sk-other-key-0123456789"}})
    async with raw_server(whole(body, status="400 Bad Request")) as raw:
        error = await failed(raw)
    assert "sk-other" not in str(error)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_error_that_comes_with_status_200_is_told_without_the_key(stream: bool) -> None:
    key = "plain0123456789"  # looks like no key
    body = json.dumps({"error": {"message": f"no access with {key}"}})
    async with raw_server(events(body) if stream else whole(body)) as raw:
        provider = OpenAIProvider(raw.url, Secret(key))
        with pytest.raises(ProviderError, match=r"no access with \[hidden\]"):
            _ = [item async for item in provider.stream(HELLO)]
        await provider.close()


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ("retry-after-ms: 250\r\n", 250),
        ("Retry-After: 1.5\r\n", 1500),
        ("Retry-After: Sat, 21 Nov 2026 10:00:30 GMT\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\n", 30_000),
        ("Retry-After: Sat, 21 Nov 2020 10:00:30 GMT\r\n", 0),
        ("Retry-After: soon\r\n", 0),
        ("Retry-After: -5\r\n", 0),
        ("Retry-After: nan\r\n", 0),
        ("Retry-After: inf\r\n", 86_400_000),
    ],
)
async def test_the_wait_a_provider_asks_for_is_read(headers: str, wait: int) -> None:
    async with raw_server(whole("{}", status="429 Too Many Requests", headers=headers)) as raw:
        assert (await failed(raw)).retry_after_ms == wait


async def test_a_server_that_hangs_up_is_asked_once() -> None:
    async with raw_server([]) as raw:
        error = await failed(raw)
        assert (error.reason, error.retryable) == ("REASON_PROVIDER_UNAVAILABLE", True)
        assert raw.connections == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://nowhere.invalid/v1"])
async def test_a_server_that_is_not_there_is_unavailable(url: str) -> None:
    provider = OpenAIProvider(url)
    with pytest.raises(ProviderError) as caught:
        await provider.generate(HELLO)
    await provider.close()
    assert (caught.value.reason, caught.value.retryable) == ("REASON_PROVIDER_UNAVAILABLE", True)


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:1", "http://", f"http://me:{KEY}@localhost/v1", f"http://localhost/v1?key={KEY}"])  # fmt: skip
def test_an_address_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        OpenAIProvider(url)
    assert KEY not in str(caught.value)


async def test_the_key_goes_in_one_header_and_is_shown_nowhere() -> None:
    body = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}
    async with raw_server(whole(json.dumps(body))) as raw:
        await streamed(raw)
        assert raw.requests[0].count(KEY.encode()) == 1
        assert KEY not in repr(OpenAIProvider(raw.url, Secret(KEY)))
