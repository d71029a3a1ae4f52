"""Anthropic's dialect (`/v1/messages`) from the server's side."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import orjson

from kfm_server.ports.models import Message, ModelRequest, Role, TokenUsage, ToolDefinition, ToolUse
from kfm_server.providers.dev_server.dialect import BadRequest
from kfm_server.providers.player import Piece, Played

_FINISHES: Final = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_SAID: Final = {
    "context_length_exceeded": "prompt is too long: 300 tokens > 200 maximum",
    "content_filter": "Output blocked by content filtering policy",
}
"""It has no codes for these: its message says them."""


class Claude:
    """See dialect.Dialect. Of a call it checks what Anthropic's API cannot do without."""

    stream_type = "text/event-stream"
    nonsense = b'event: content_block_delta\ndata: {"type": nonsense\n\n'
    fragment = b'{"id": "msg_x", "type": "mess'

    def check(self, body: Any) -> dict[str, Any]:
        """Raises BadRequest."""
        call = cast("dict[str, Any]", body if isinstance(body, dict) else {})
        for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
            if not isinstance(call.get(name), kind) or not call[name]:
                raise BadRequest(f"{name}: Field required")
        if any(message.get("role") not in ("user", "assistant") for message in call["messages"]):
            raise BadRequest("messages: a role is user or assistant")
        return call

    def request_of(self, call: dict[str, Any]) -> ModelRequest:
        """The system prompt is its first message, and each result of a tool a message of its own."""
        tools = {tool["name"]: tool for tool in call.get("tools") or ()}
        messages = [Message("system", _text(call["system"]))] if call.get("system") else []
        for message in call["messages"]:
            messages += _messages(message["role"], message["content"])
        return ModelRequest(
            call["model"],
            tuple(messages),
            tuple(ToolDefinition(n, t.get("description", ""), t["input_schema"]) for n, t in tools.items()),
            output_schema=(call.get("output_format") or {}).get("schema"),
        )

    def streams(self, call: dict[str, Any]) -> bool:
        """Only if it says so."""
        return bool(call.get("stream"))

    def whole(self, played: Played, call: dict[str, Any]) -> dict[str, Any]:
        """A message."""
        content: list[dict[str, Any]] = []
        if played.reasoning:
            content.append({"type": "thinking", "thinking": played.reasoning, "signature": "s"})
        if played.text or played.refusal:
            content.append({"type": "text", "text": played.text or played.refusal})
        content += (
            {"type": "tool_use", "id": tool.id, "name": tool.name, "input": _object(tool.arguments_json)}
            for tool in played.tools
        )
        return _head(played, call) | {
            "content": content,
            "stop_reason": _finish(played),
            "usage": _usage(played.usage),
        }

    def frames(self, played: Played, call: dict[str, Any]) -> Iterator[bytes]:
        """Blocks of content; a piece brings the start of its block, and the end of the one before."""
        usage = _usage(played.usage) | {"output_tokens": 0}
        begun = _head(played, call) | {"content": [], "stop_reason": None, "usage": usage}
        yield _event("message_start", message=begun)
        block, kind = -1, ""
        for piece in played.pieces():
            frame = b""
            if piece.kind != kind and piece.kind != "tool_arguments":
                if block >= 0:
                    frame = _event("content_block_stop", index=block)
                block += 1
                frame += _event("content_block_start", index=block, content_block=_block(piece, played))
            kind = "" if piece.kind == "tool_arguments" else piece.kind
            if piece.text:
                frame += _event("content_block_delta", index=block, delta=_delta(piece))
            yield frame
        end = _event("content_block_stop", index=block) if block >= 0 else b""
        end += _event("message_delta", delta={"stop_reason": _finish(played)}, usage=_usage(played.usage))
        yield end + _event("message_stop")

    def error(self, status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
        """Anthropic's envelope; `param` has no place in it."""
        kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
        told: dict[str, Any] = {"type": kind, "message": _SAID.get(code or "", message)}
        if code == "insufficient_quota":
            told["details"] = {"error_code": "enforced_spend_limit_reached"}
        return {"type": "error", "error": told, "request_id": "req_x"}

    def error_frame(self, message: str, code: str) -> bytes:
        """An event named error."""
        return _event("error", error={"type": code or "api_error", "message": message})


def _messages(role: Role, content: Any) -> Iterator[Message]:
    if isinstance(content, str):
        yield Message(role, content)
        return
    uses = [
        ToolUse(part["id"], part["name"], json.dumps(part["input"]))
        for part in content
        if part["type"] == "tool_use"
    ]
    if uses or any(part["type"] == "text" for part in content):
        yield Message(role, _text(content), tuple(uses))
    for part in content:
        if part["type"] == "tool_result":
            yield Message("tool", _text(part.get("content") or ""), tool_use_id=part["tool_use_id"])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def _object(arguments_json: str) -> Any:
    """An input is an object: what is none stands in one."""
    try:
        value = json.loads(arguments_json)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"unreadable": arguments_json}


def _head(played: Played, call: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{played.request_id}",
        "type": "message",
        "role": "assistant",
        "model": call["model"],
        "stop_sequence": None,
    }


def _finish(played: Played) -> str:
    return "refusal" if played.refusal else _FINISHES.get(played.finish, "end_turn")


def _usage(usage: TokenUsage | None) -> dict[str, int]:
    spent = usage or TokenUsage()
    return {"input_tokens": spent.input_tokens, "output_tokens": spent.output_tokens}


def _block(piece: Piece, played: Played) -> dict[str, Any]:
    match piece.kind:
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "tool":
            tool = played.tools[piece.index]
            return {"type": "tool_use", "id": tool.id, "name": tool.name, "input": {}}
        case _:
            return {"type": "text", "text": ""}


def _delta(piece: Piece) -> dict[str, Any]:
    match piece.kind:
        case "reasoning":
            return {"type": "thinking_delta", "thinking": piece.text}
        case "tool_arguments":
            return {"type": "input_json_delta", "partial_json": piece.text}
        case _:
            return {"type": "text_delta", "text": piece.text}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: ".encode() + orjson.dumps({"type": kind, **fields}) + b"\n\n"
