"""The development server refuses what OpenAI refuses, in OpenAI's words' form; and its journal tells what was asked."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kfm_server.ports.models import Message, ModelRequest, ToolDefinition, ToolUse
from kfm_server.providers.dev_server.server import DevServer
from kfm_server.providers.openai_http import OpenAIProvider
from kfm_server.providers.scripts import load_script
from kfm_server.secret import Secret
from kfm_server.tools import BUILTIN_TOOLS

USER = {"role": "user", "content": "hello"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "ok"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
STRICT = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


@dataclass
class Served:
    url: str
    token: str
    session: aiohttp.ClientSession

    async def post(self, body: Any, path: str = "v1/chat/completions", **headers: str) -> tuple[int, Any]:
        given = {"Authorization": f"Bearer {self.token}", **headers}
        async with self.session.post(f"{self.url}/{path}", json=body, headers=given) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> Any:
        given = {"Authorization": f"Bearer {self.token}"}
        async with self.session.get(f"{self.url}/{path}", headers=given) as response:
            return await response.json()


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    token = "test-token-1"
    runner = web.AppRunner(DevServer(load_script("demo"), token).application(), shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield Served(f"http://127.0.0.1:{runner.addresses[0][1]}", token, session)
    await runner.cleanup()


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {**TOOL["function"], **function}}


def schema_format(**inner: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": STRICT, **inner}}


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("no model", {"model": None}),
    ("model of the wrong type", {"model": 7}),
    ("no messages", {"messages": None}),
    ("empty messages", {"messages": []}),
    ("messages of the wrong type", {"messages": "hello"}),
    ("unknown parameter", {"temprature": 1}),
    ("temperature out of range", {"temperature": 3}),
    ("max_tokens of zero", {"max_tokens": 0}),
    ("stream as text", {"stream": "yes"}),
    ("a message that is no object", {"messages": ["hello"]}),
    ("unknown role", {"messages": [{"role": "bot", "content": "x"}]}),
    ("unknown key of a message", {"messages": [{**USER, "mood": "good"}]}),
    ("no content", {"messages": [{"role": "user"}]}),
    ("orphan tool result", {"messages": [USER, RESULT]}),
    ("tool result for another call", {"messages": [USER, ASKED, {**RESULT, "tool_call_id": "b"}]}),
    ("tool result given twice", {"messages": [USER, ASKED, RESULT, RESULT]}),
    ("tool result without an id", {"messages": [USER, ASKED, {"role": "tool", "content": "ok"}]}),
    ("tool call without a result", {"messages": [USER, ASKED]}),
    ("tool call answered too late", {"messages": [USER, ASKED, USER, RESULT]}),
    ("the same id twice", {"messages": [USER, {**ASKED, "tool_calls": [CALL, CALL]}, RESULT]}),
    ("empty tool calls", {"messages": [USER, {**ASKED, "tool_calls": []}]}),
    ("arguments as an object", {"messages": [USER, {**ASKED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}, RESULT]}),
    ("no tools", {"tools": []}),
    ("tool without type", {"tools": [{"function": TOOL["function"]}]}),
    ("tool with a bad name", {"tools": [tool(name="a b")]}),
    ("tool with a long name", {"tools": [tool(name="a" * 65)]}),
    ("parameters of no object", {"tools": [tool(parameters={"type": "string"})]}),
    ("parameters with allOf on top", {"tools": [tool(parameters={"type": "object", "allOf": []})]}),
    ("strict tool that is not", {"tools": [tool(strict=True, parameters={"type": "object", "properties": {"a": {}}})]}),
    ("tool_choice without tools", {"tool_choice": "auto"}),
    ("stream_options without stream", {"stream_options": {"include_usage": True}}),
    ("unknown stream option", {"stream": True, "stream_options": {"usage": True}}),
    ("unknown response_format", {"response_format": {"type": "yaml"}}),
    ("response_format without name", {"response_format": schema_format(name="")}),
    ("response_format without schema", {"response_format": schema_format(schema=None)}),
    ("strict schema that is not", {"response_format": schema_format(strict=True, schema={"type": "object", "properties": {"a": {}}})}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), REFUSED, ids=[name for name, _ in REFUSED])
async def test_what_openai_refuses_is_refused_in_its_envelope(
    served: Served, name: str, change: dict[str, Any]
) -> None:
    body = {k: v for k, v in ({"model": "m", "messages": [USER]} | change).items() if v is not None}
    status, answer = await served.post(body)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error" and answer["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": [USER, ASKED, RESULT]},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True},
        {"response_format": schema_format(strict=True)},
        {"response_format": {"type": "json_object"}},
    ],
)  # fmt: skip
async def test_what_openai_takes_is_answered(served: Served, change: dict[str, Any]) -> None:
    status, answer = await served.post({"model": "m", "messages": [USER], **change})
    assert (status, answer["object"]) == (200, "chat.completion")


@pytest.mark.parametrize("text", ["", "[1]", "{"])
async def test_a_body_that_is_no_json_object_is_refused(served: Served, text: str) -> None:
    headers = {"Authorization": f"Bearer {served.token}"}
    async with served.session.post(f"{served.url}/v1/chat/completions", data=text, headers=headers) as answer:
        assert answer.status == 400


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Basic dGVzdA=="])
@pytest.mark.parametrize("path", ["v1/chat/completions", "v1/embeddings", "_dev/script"])
async def test_a_call_without_the_key_is_refused(served: Served, token: str, path: str) -> None:
    status, answer = await served.post({}, path, Authorization=token)
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("texts", [None, "", [], [1], [""]])
async def test_embeddings_of_nothing_are_refused(served: Served, texts: Any) -> None:
    status, _ = await served.post({"model": "m", "input": texts}, "v1/embeddings")
    assert status == 400


async def test_the_adapter_sends_nothing_that_openai_refuses(served: Served) -> None:
    tools = tuple(
        ToolDefinition(t.spec.name, t.spec.description, t.spec.input_schema) for t in BUILTIN_TOOLS.values()
    )
    messages = (
        Message("system", "be brief"),
        Message("user", "compute"),
        Message("assistant", "", (ToolUse("a", "calculator", "not json"), ToolUse("b", "calculator", "{}"))),
        Message("tool", "one", tool_use_id="a"),
        Message("tool", "", tool_use_id="b"),
        Message("assistant", ""),
        Message("user", "go on"),
    )
    provider = OpenAIProvider(f"{served.url}/v1", Secret(served.token))
    for schema in (None, STRICT, {"type": "object", "properties": {"a": {}}}):
        request = ModelRequest("m", messages, tools, schema, max_output_tokens=5, temperature=0.0)
        assert (await provider.generate(request)).text
        assert [item async for item in provider.stream(request)]
    await provider.close()


async def test_the_journal_tells_what_was_asked_and_is_forgotten_on_demand(served: Served) -> None:
    await served.post({"model": "m", "messages": [USER]}, **{"Idempotency-Key": "k1"})
    await served.post({"model": "n", "messages": []})
    found = await served.get("_dev/requests")
    assert (found["count"], found["by_model"]) == (2, {"m": 1, "n": 1})
    assert [(r["idempotency_key"], r["status"], r["ended"]) for r in found["requests"]] == [
        ("k1", 200, "answered"),
        ("", 400, "answered"),
    ]
    assert found["requests"][0]["body"]["messages"] == [USER]
    await served.post({}, "_dev/reset")
    assert (await served.get("_dev/requests"))["count"] == 0


async def test_the_script_is_changed_over_http_and_a_bad_one_is_refused(served: Served) -> None:
    assert (await served.post({"rules": [{"reply": {"text": "new"}}]}, "_dev/script"))[0] == 200
    status, answer = await served.post({"rules": [{}]}, "_dev/script")
    assert status == 400 and "rules[0]" in answer["error"]["message"]
    _, reply = await served.post({"model": "m", "messages": [USER]})
    assert reply["choices"][0]["message"]["content"] == "new"


async def test_its_models_are_listed(served: Served) -> None:
    assert [row["id"] for row in (await served.get("v1/models"))["data"]] == ["scripted", "scripted-embed"]
