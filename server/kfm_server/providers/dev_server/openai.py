"""OpenAI's dialect from the server's side: its JSON as a request, and an answer as its JSON."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from kfm_server.ports.models import Message, ModelRequest, TokenUsage, ToolDefinition, ToolUse
from kfm_server.providers.dev_server.checks import check_chat
from kfm_server.providers.player import Piece, Played


class OpenAI:
    """See dialect.Dialect. What is no conversation for it (checks.py) is refused as OpenAI refuses it."""

    stream_type = "text/event-stream"
    nonsense = b'data: {"choices": [{"delta": nonsense\n\n'
    fragment = b'{"id": "x", "choices": [{"mess'

    def check(self, body: Any) -> dict[str, Any]:
        """Raises BadRequest."""
        return check_chat(body)

    def request_of(self, call: dict[str, Any]) -> ModelRequest:
        """The call."""
        wanted: Any = call.get("response_format") or {}
        schema: Any = (wanted.get("json_schema") or {}).get("schema")
        return ModelRequest(
            model=call["model"],
            messages=tuple(map(_message, call["messages"])),
            tools=tuple(
                ToolDefinition(f["name"], f.get("description", ""), f.get("parameters", {}))
                for f in (tool["function"] for tool in call.get("tools") or ())
            ),
            output_schema=schema,
        )

    def streams(self, call: dict[str, Any]) -> bool:
        """Only if it says so."""
        return bool(call.get("stream"))

    def whole(self, played: Played, call: dict[str, Any]) -> dict[str, Any]:
        """A chat completion."""
        message: dict[str, Any] = {"role": "assistant", "content": played.text or None}
        if played.reasoning:
            message["reasoning_content"] = played.reasoning
        if played.refusal:
            message["refusal"] = played.refusal
        if played.tools:
            message["tool_calls"] = [
                {
                    "id": tool.id,
                    "type": "function",
                    "function": {"name": tool.name, "arguments": tool.arguments_json},
                }
                for tool in played.tools
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": played.finish}
        body = _head(played, call["model"], "chat.completion") | {"choices": [choice]}
        return body | ({"usage": _usage(played.usage)} if played.usage else {})

    def frames(self, played: Played, call: dict[str, Any]) -> Iterator[bytes]:
        """Its chunks; the usage is told if it was asked for."""
        with_usage = bool(call.get("stream_options", {}).get("include_usage"))
        head = _head(played, call["model"], "chat.completion.chunk")
        empty = {"usage": None} if with_usage else {}

        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return _event({**head, "choices": [choice], **empty})

        begun = False
        for piece in played.pieces():
            if not begun:
                yield chunk(
                    {"role": "assistant", "content": None if piece.kind == "tool" else "", "refusal": None}
                )
                begun = True
            yield chunk(_delta(piece, played))
        yield chunk({}, played.finish)
        if with_usage and played.usage:
            yield _event({**head, "choices": [], "usage": _usage(played.usage)})
        yield b"data: [DONE]\n\n"

    def error(self, status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
        """The envelope."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
        return {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def error_frame(self, message: str, code: str) -> bytes:
        """The envelope as an event."""
        return _event(self.error(500, message, None, code or None))


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _message(raw: Mapping[str, Any]) -> Message:
    uses = tuple(
        ToolUse(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in raw.get("tool_calls") or ()
    )
    role = "system" if raw["role"] == "developer" else raw["role"]
    content = raw.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    return Message(role, content, uses, raw.get("tool_call_id", ""))


def _delta(piece: Piece, played: Played) -> dict[str, Any]:
    match piece.kind:
        case "reasoning":
            return {"reasoning_content": piece.text}
        case "text":
            return {"content": piece.text}
        case "refusal":
            return {"refusal": piece.text}
        case "tool":
            tool = played.tools[piece.index]
            begun = {"index": piece.index, "id": tool.id, "type": "function"}
            return {"tool_calls": [begun | {"function": {"name": tool.name, "arguments": ""}}]}
        case "tool_arguments":
            return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.text}}]}


def embeddings(vectors: Sequence[Sequence[float]], usage: TokenUsage | None, model: str) -> dict[str, Any]:
    """An answer with embeddings."""
    rows = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    spent = usage or TokenUsage()
    told = {"prompt_tokens": spent.input_tokens, "total_tokens": spent.input_tokens}
    return {"object": "list", "data": rows, "model": model, "usage": told}


def _head(played: Played, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{played.request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _usage(usage: TokenUsage) -> dict[str, int]:
    total = usage.input_tokens + usage.output_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": total,
    }
