"""What a model sends: checked, and made into the request of the RPC. Refusals are words that it can act on."""

import json
import re
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from xenocomm._gen.pool import POOL, pb

from kfm_mcp.catalogue import Json, ToolEntry

_EXAMPLES = {"kfm_turn_start": '{"turn": {"input": [{"text": "what is 2 + 2?"}]}}'}
_DEPTH = 64
_KINDS: dict[str, type] = {"string": str, "integer": int, "boolean": bool}


class Refused(Exception):
    """The call was not made; the text says what was wrong and what to do."""


def split(entry: ToolEntry, arguments: Mapping[str, Any] | None) -> tuple[Any, Json]:
    """The protobuf request, and the bridge's own arguments. Refused."""
    given = dict(arguments or {})
    own = {name: given.pop(name) for name in entry.own if name in given}
    for name, value in own.items():
        _check(name, entry.own[name], value)
    known: Mapping[str, Any] = entry.tool.input_schema["properties"]
    if unknown := sorted(set(given) - set(known)):
        raise Refused(f"There is no argument {unknown[0]!r}. Known: {', '.join(known) or 'none'}.")
    missing = [name for name in entry.tool.input_schema.get("required", ()) if name not in given]
    if missing:
        raise Refused(f"The argument {missing[0]!r} is missing.{_example(entry)}")
    request = pb(entry.request)()
    try:
        json_format.ParseDict(given, request, descriptor_pool=POOL, max_recursion_depth=_DEPTH)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as wrong:
        raise Refused(f"The arguments do not fit: {_words(wrong)}.{_example(entry)}") from None
    return request, own


def as_json(message: Any) -> Json:
    """A protobuf message as JSON with the names of the contract."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=POOL)


def compact(value: Any) -> str:
    """JSON without spaces, readable in any script."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _check(name: str, schema: Json, value: Any) -> None:
    kind = _KINDS[schema["type"]]
    fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    choices = schema.get("enum")
    if not fits or (choices and value not in choices):
        raise Refused(f"{name} must be {' or '.join(choices) if choices else 'of type ' + schema['type']}.")
    least = schema.get("minimum")
    if least is not None and value < least:
        raise Refused(f"{name} must be {least} or more.")


def _words(wrong: BaseException) -> str:
    """protobuf's message without its nesting: `turn.input: ...`."""
    text = " ".join(str(wrong).split())
    path: list[str] = []
    while found := re.match(r"Failed to parse (\S+) field: ", text):
        path.append(found[1])
        text = text[found.end() :]
    where = ".".join(path)
    text = re.sub(r'Message type "[^"]+" has no field named "([^"]+)".*', r'there is no field "\1"', text)
    text = re.sub(
        r"repeated field (\S+) must be in \[\] which is (.*) at .*", r"it must be a list, not \2", text
    )
    return f"{where}: {text}"[:400].rstrip(".") if where else text[:400].rstrip(".")


def _example(entry: ToolEntry) -> str:
    example = _EXAMPLES.get(entry.name)
    return f" Example: {example}" if example else ""
