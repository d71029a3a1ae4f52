"""OpenAI's dialect: a request as its JSON, and its JSON as a reply. Whoever carries it: HTTP or LiteLLM."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from kfm_server.ports.models import Message, ModelDelta, ModelRequest, TokenUsage
from kfm_server.providers import errors
from kfm_server.providers.collect import Collected
from kfm_server.providers.json_schema import strict_problem, told_parameters


def request_body(request: ModelRequest, *, stream: bool, limit_key: str = "max_tokens") -> dict[str, Any]:
    """The JSON of a call. limit_key: what the endpoint calls the bound on output tokens."""
    body: dict[str, Any] = {"model": request.model, "messages": [_message(m) for m in request.messages]}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": told_parameters(tool.input_schema),
                },
            }
            for tool in request.tools
        ]
    if request.output_schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": "reply",
                "schema": request.output_schema,
                "strict": not strict_problem(request.output_schema),
            },
        }
    if request.max_output_tokens:
        body[limit_key] = request.max_output_tokens
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_use_id, "content": message.text}
    if not message.tool_uses:
        return {"role": message.role, "content": message.text}
    calls = [
        {
            "id": use.id,
            "type": "function",
            "function": {"name": use.name, "arguments": _readable(use.arguments_json)},
        }
        for use in message.tool_uses
    ]
    return {"role": "assistant", "content": message.text or None, "tool_calls": calls}


def _readable(arguments: str) -> str:
    """Arguments that a model got wrong are told back to it inside an object: many servers parse them and fail."""
    try:
        if isinstance(orjson.loads(arguments), dict):
            return arguments
    except ValueError:
        pass
    return orjson.dumps({"unreadable_arguments": arguments}).decode()


def take_chunk(chunk: Any, into: Collected, secrets: tuple[str, ...]) -> Sequence[ModelDelta]:
    """One event of a stream; `secrets` are not told of an error. Raises ProviderError, and KeyError, TypeError or AttributeError where it is not of the dialect."""
    if chunk.get("error"):
        raise errors.from_event(chunk, secrets=secrets, usage=into.spent())
    usage = chunk.get("usage")
    if usage:
        into.usage = token_usage(usage)
    choices = chunk.get("choices")
    if not choices:
        return ()
    if not into.model:
        into.model = chunk.get("model") or ""
        into.request_id = into.request_id or chunk.get("id") or ""
    choice = choices[0]
    found = take_message(choice.get("delta") or {}, into)
    into.finish = choice.get("finish_reason") or into.finish
    return found


def take_whole(body: Any, into: Collected, secrets: tuple[str, ...]) -> None:
    """A whole reply. Raises as take_chunk."""
    if body.get("error"):
        raise errors.from_event(body, secrets=secrets)
    into.model = body.get("model") or ""
    into.request_id = into.request_id or body.get("id") or ""
    if body.get("usage"):
        into.usage = token_usage(body["usage"])
    choice = body["choices"][0]
    take_message(choice["message"], into)
    into.finish = choice.get("finish_reason") or "stop"


def take_message(message: Mapping[str, Any], into: Collected) -> Sequence[ModelDelta]:
    """A message or a piece of one; answers what is new to show."""
    found: list[ModelDelta] = []
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if reasoning:
        found.append(into.reason(_text(reasoning)))
    text = message.get("content")
    if text:
        found.append(into.say(_text(text)))
    refusal = message.get("refusal")
    if refusal:
        found.append(into.say(_text(refusal), refused=True))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):  # some servers send the object itself
            arguments = orjson.dumps(arguments).decode()
        into.tool(call.get("index"), call.get("id") or "", function.get("name") or "", arguments)
        if arguments:
            found.append(ModelDelta("tool_arguments", arguments))
    return found


def _text(content: Any) -> str:
    """The text of a content: itself, or its parts of type text, as some servers send it."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def token_usage(usage: Mapping[str, Any]) -> TokenUsage:
    """Tokens as reported. Servers that count a part only are taken at their word."""
    return TokenUsage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
