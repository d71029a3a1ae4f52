"""What OpenAI refuses of a call, and refuses it with 400: types, names, and the order of messages."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from kfm_server.providers.dev_server.dialect import BadRequest
from kfm_server.providers.json_schema import parameters_problem, strict_problem

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_TOOLS: Final = 128


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds


_CHAT: Final[Mapping[str, Callable[[Any], bool]]] = {
    "model": _is(str),
    "messages": _is(list),
    "tools": _is(list),
    "tool_choice": _is(str, dict),
    "parallel_tool_calls": _is(bool),
    "response_format": _is(dict),
    "stream": _is(bool),
    "stream_options": _is(dict),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "n": _whole(1, 128),
    "max_tokens": _whole(1, 2**31),
    "max_completion_tokens": _whole(1, 2**31),
    "seed": _whole(-(2**63), 2**63 - 1),
    "stop": _is(str, list),
    "logprobs": _is(bool),
    "top_logprobs": _whole(0, 20),
    "logit_bias": _is(dict),
    "user": _is(str),
    "store": _is(bool),
    "metadata": _is(dict),
    "reasoning_effort": _is(str),
    "service_tier": _is(str),
    "verbosity": _is(str),
    "safety_identifier": _is(str),
    "prompt_cache_key": _is(str),
}
_EMBED: Final[Mapping[str, Callable[[Any], bool]]] = {
    "model": _is(str),
    "input": _is(str, list),
    "encoding_format": lambda value: value in ("float", "base64"),
    "dimensions": _whole(1, 100_000),
    "user": _is(str),
}
_ALLOWED = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls", "audio", "function_call"},
    "tool": {"role", "content", "tool_call_id"},
}


def check_chat(body: Any) -> dict[str, Any]:
    """The body of a chat completion, checked. Raises BadRequest."""
    call = _parameters(body, _CHAT, ("model", "messages"))
    if not call["messages"]:
        raise BadRequest("messages is empty: at least one is needed", "messages", "empty_array")
    _check_order(call["messages"])
    for i, tool in enumerate(call.get("tools", [])):
        _check_tool(tool, f"tools[{i}]")
    if "tools" in call and not 1 <= len(call["tools"]) <= MAX_TOOLS:
        raise BadRequest(f"tools holds 1 to {MAX_TOOLS}", "tools", "empty_array")
    for name in ("tool_choice", "parallel_tool_calls"):
        if name in call and "tools" not in call:
            raise BadRequest(f"{name} is only allowed with tools", name)
    if "stream_options" in call:
        if not call.get("stream"):
            raise BadRequest("stream_options is only allowed with stream", "stream_options")
        if set(call["stream_options"]) - {"include_usage", "include_obfuscation"}:
            raise BadRequest("unknown parameter", "stream_options", "unknown_parameter")
    if "response_format" in call:
        _check_format(call["response_format"])
    return call


def check_embed(body: Any) -> dict[str, Any]:
    """The body of a call for embeddings, checked. Raises BadRequest."""
    call = _parameters(body, _EMBED, ("model", "input"))
    texts = [call["input"]] if isinstance(call["input"], str) else call["input"]
    if not texts or any(not isinstance(text, str) or not text for text in texts):
        raise BadRequest("input holds texts that are not empty", "input", "invalid_type")
    return call | {"input": texts}


def _parameters(
    body: Any, known: Mapping[str, Callable[[Any], bool]], required: tuple[str, ...]
) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise BadRequest("the body is no JSON object")
    call = {k: v for k, v in cast("dict[str, Any]", body).items() if v is not None}
    for name in required:
        if not call.get(name) and call.get(name) != []:
            raise BadRequest(f"the parameter {name!r} is missing", name, "missing_required_parameter")
    for name, value in call.items():
        if name not in known:
            raise BadRequest(f"unknown parameter {name!r}", name, "unknown_parameter")
        if not known[name](value):
            raise BadRequest(f"{name!r} is of the wrong type or out of range", name, "invalid_type")
    return call


def _check_order(messages: list[Any]) -> None:
    """Every tool's message answers a call of the assistant's message before it, and every call is answered."""
    open_calls: set[str] = set()
    answering = False
    for i, raw in enumerate(messages):
        place = f"messages[{i}]"
        message = _check_message(raw, place)
        if message["role"] == "tool":
            if not answering or message["tool_call_id"] not in open_calls:
                raise BadRequest(
                    "a message of the role tool answers a tool_call of the assistant's message before", place
                )
            open_calls.discard(message["tool_call_id"])
            continue
        if open_calls:
            missing = ", ".join(sorted(open_calls))
            raise BadRequest(f"tool_calls without a message that answers them: {missing}", place)
        ids = [call["id"] for call in message.get("tool_calls") or ()]
        if len(set(ids)) < len(ids):
            raise BadRequest("duplicate tool_call_id", f"{place}.tool_calls", "invalid_value")
        open_calls, answering = set(ids), bool(ids)
    if open_calls:
        missing = ", ".join(sorted(open_calls))
        raise BadRequest(f"tool_calls without a message that answers them: {missing}", "messages")


def _check_message(raw: Any, place: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise BadRequest("a message is an object", place, "invalid_type")
    message = cast("dict[str, Any]", raw)
    role = message.get("role")
    if role not in _ALLOWED:
        raise BadRequest(f"a role is one of {', '.join(_ALLOWED)}", f"{place}.role", "invalid_value")
    if unknown := set(message) - _ALLOWED[role]:
        name = sorted(unknown)[0]
        raise BadRequest(f"unknown parameter {name!r}", f"{place}.{name}", "unknown_parameter")
    calls = message.get("tool_calls")
    if not isinstance(message.get("content"), str | list) and not (role == "assistant" and calls):
        raise BadRequest("content is text or a list of parts", f"{place}.content", "invalid_type")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise BadRequest("tool_call_id is missing", f"{place}.tool_call_id", "missing_required_parameter")
    if calls is not None and (not isinstance(calls, list) or not calls):
        raise BadRequest("tool_calls is a list that is not empty", f"{place}.tool_calls", "empty_array")
    for j, call in enumerate(cast("list[Any]", calls or [])):
        where = f"{place}.tool_calls[{j}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type") != "function":
            raise BadRequest("a tool_call has the type function, and one", where, "invalid_type")
        parts = cast("dict[str, Any]", {**function, "id": call.get("id")})
        for name in ("id", "name", "arguments"):
            if not isinstance(parts.get(name), str):
                raise BadRequest(f"{name} is text", f"{where}.{name}", "invalid_type")
        if not parts["id"] or not _NAME.fullmatch(parts["name"]):
            raise BadRequest("a tool_call has an id and a name of a tool", where, "invalid_value")
    return message


def _check_tool(raw: Any, place: str) -> None:
    tool = cast("dict[str, Any]", raw if isinstance(raw, dict) else {})
    function: Any = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise BadRequest("a tool has the type function, and one", place, "invalid_type")
    own = cast("dict[str, Any]", function)
    if set(tool) - {"type", "function"} or set(own) - {"name", "description", "parameters", "strict"}:
        raise BadRequest("unknown parameter", place, "unknown_parameter")
    if not isinstance(own.get("name"), str) or not _NAME.fullmatch(own["name"]):
        raise BadRequest(f"a name matches {_NAME.pattern}", f"{place}.function.name", "invalid_value")
    if not isinstance(own.get("description", ""), str):
        raise BadRequest("description is text", f"{place}.function.description", "invalid_type")
    schema: Any = own.get("parameters", {"type": "object", "properties": {}})
    problem = parameters_problem(schema) or (strict_problem(schema) if own.get("strict") else "")
    if problem:
        name = own["name"]
        raise BadRequest(
            f"invalid schema for the function {name!r}: {problem}",
            f"{place}.function.parameters",
            "invalid_function_parameters",
        )


def _check_format(wanted: dict[str, Any]) -> None:
    kind = wanted.get("type")
    if kind in ("text", "json_object") and set(wanted) == {"type"}:
        return
    inner: Any = wanted.get("json_schema")
    if kind != "json_schema" or set(wanted) != {"type", "json_schema"} or not isinstance(inner, dict):
        raise BadRequest(
            "response_format is text, json_object or json_schema", "response_format", "invalid_value"
        )
    own = cast("dict[str, Any]", inner)
    place = "response_format.json_schema"
    if unknown := sorted(set(own) - {"name", "description", "schema", "strict"}):
        raise BadRequest(f"unknown parameter {unknown[0]!r}", place, "unknown_parameter")
    if not isinstance(own.get("name"), str) or not _NAME.fullmatch(own["name"]):
        raise BadRequest(f"a name matches {_NAME.pattern}", f"{place}.name", "invalid_value")
    if not isinstance(own.get("schema"), dict):
        raise BadRequest("schema is a JSON schema", f"{place}.schema", "missing_required_parameter")
    problem = strict_problem(own["schema"]) if own.get("strict") else ""
    if problem:
        raise BadRequest(f"invalid schema for response_format: {problem}", "response_format", "invalid_value")
