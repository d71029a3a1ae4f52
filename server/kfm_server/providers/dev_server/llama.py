"""Ollama's dialect (`/api/chat`) from the server's side."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import orjson

from kfm_server.ports.models import Message, ModelRequest, ToolDefinition, ToolUse
from kfm_server.providers.dev_server.dialect import BadRequest
from kfm_server.providers.player import Played

_SAID: Final = {"context_length_exceeded": "the input length exceeds the context length"}
"""It has no codes: its message says it all."""


class Llama:
    """See dialect.Dialect. Calls of tools come whole, without ids; a call streams unless it says that it does not."""

    stream_type = "application/x-ndjson"
    nonsense = b'{"model": nonsense\n'
    fragment = b'{"model": "x", "mess'

    def check(self, body: Any) -> dict[str, Any]:
        """Raises BadRequest."""
        call = cast("dict[str, Any]", body if isinstance(body, dict) else {})
        if not call:
            raise BadRequest("missing request body")
        if not isinstance(call.get("model"), str) or not call["model"]:
            raise BadRequest("model is required")
        return call

    def request_of(self, call: dict[str, Any]) -> ModelRequest:
        """`format` is the schema, where it is one."""
        wanted = call.get("format")
        return ModelRequest(
            call["model"],
            tuple(map(_message, call.get("messages") or ())),
            tuple(
                ToolDefinition(f["name"], f.get("description", ""), f.get("parameters", {}))
                for f in (tool["function"] for tool in call.get("tools") or ())
            ),
            output_schema=cast("dict[str, Any]", wanted) if isinstance(wanted, dict) else None,
        )

    def streams(self, call: dict[str, Any]) -> bool:
        """Unless it says that it does not."""
        return call.get("stream") is not False

    def whole(self, played: Played, call: dict[str, Any]) -> dict[str, Any]:
        """The last line of a stream, with all in it."""
        message: dict[str, Any] = {"role": "assistant", "content": played.text or played.refusal}
        if played.reasoning:
            message["thinking"] = played.reasoning
        if played.tools:
            message["tool_calls"] = [_call(tool) for tool in played.tools]
        return _end(played, call, message)

    def frames(self, played: Played, call: dict[str, Any]) -> Iterator[bytes]:
        """A line for each piece; what is only a part of a tool's call stands in no line."""
        yield b""
        for piece in played.pieces():
            message: dict[str, Any] = {"role": "assistant", "content": ""}
            match piece.kind:
                case "reasoning":
                    message["thinking"] = piece.text
                case "tool":
                    message["tool_calls"] = [_call(played.tools[piece.index])]
                case "tool_arguments":
                    continue
                case _:
                    message["content"] = piece.text
            yield _line({**_head(call), "message": message, "done": False})
        yield _line(_end(played, call, {"role": "assistant", "content": ""}))

    def error(self, status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
        """A text, and nothing else."""
        return {"error": _SAID.get(code or "", message)}

    def error_frame(self, message: str, code: str) -> bytes:
        """The same in a line."""
        return _line({"error": message})


def _message(raw: Mapping[str, Any]) -> Message:
    uses = tuple(
        ToolUse("", call["function"]["name"], json.dumps(call["function"]["arguments"]))
        for call in raw.get("tool_calls") or ()
    )
    return Message(raw["role"], raw.get("content") or "", uses)


def _call(tool: ToolUse) -> dict[str, Any]:
    try:
        arguments: Any = json.loads(tool.arguments_json)
    except ValueError:
        arguments = {"unreadable": tool.arguments_json}
    return {"function": {"name": tool.name, "arguments": arguments}}


def _head(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"model": call["model"], "created_at": "2026-01-01T00:00:00Z"}


def _end(played: Played, call: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    told = {"done": True, "done_reason": "length" if played.finish == "length" else "stop"}
    if played.usage is not None:
        told |= {"prompt_eval_count": played.usage.input_tokens, "eval_count": played.usage.output_tokens}
    return {**_head(call), "message": message, **told}


def _line(value: Any) -> bytes:
    return orjson.dumps(value) + b"\n"
