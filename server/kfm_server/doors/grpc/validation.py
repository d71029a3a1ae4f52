"""Requests, from bytes to a message that keeps the rules of its schema."""

from typing import TypeVar

import orjson
import protovalidate
from google.protobuf.message import DecodeError, Message
from kfm.catalogue.errors import InvalidArgument, MalformedRequest, PayloadTooLarge

from kfm_server.canonical import parse_json
from kfm_server.schema_work import check_work
from kfm_server.tool_catalogue import compiled

M = TypeVar("M", bound=Message)
# Below this a request cannot hold enough to be slow, and is not walked.
_SMALL_BYTES = 4_096
_MOST_ELEMENTS = 1_000
_validator = protovalidate.Validator()


def parse(kind: type[M], raw: bytes, max_bytes: int) -> M:
    """Decode and check a request. PayloadTooLarge, MalformedRequest, or InvalidArgument with the path of each field."""
    if len(raw) > max_bytes:
        raise PayloadTooLarge(
            f"The request has {len(raw)} bytes; max_message_bytes={max_bytes}.",
            metadata={"limit": "max_message_bytes", "value": str(max_bytes)},
        )
    try:
        message = kind.FromString(raw)
    except DecodeError:
        # The decoder's own text names no field, only its implementation.
        name = kind.DESCRIPTOR.full_name
        raise MalformedRequest(
            f"The request is not a {name}.",
            violations=[("", "decode", f"These bytes are not a valid {name}.")],
            metadata={"message": name},
        ) from None
    if len(raw) > _SMALL_BYTES:
        _check_counts(message, "")
    check(message)
    return message


def _check_counts(message: Message, prefix: str) -> None:
    """Refuse absurdly many elements before each is validated: a million empty ones fit in 2 MB and take 20 s."""
    for field, value in message.ListFields():
        path = prefix + field.name
        if field.is_repeated:
            if len(value) > _MOST_ELEMENTS:
                sentence = f"has {len(value)} elements; no field may have more than {_MOST_ELEMENTS}"
                raise invalid([(path, "repeated.max_items", sentence)])
        elif field.message_type is not None:
            _check_counts(value, f"{path}.")


def check(message: Message) -> None:
    """Apply the rules of the schema. InvalidArgument names the first broken one and lists all."""
    found = _validator.collect_violations(message)
    if not found:
        return
    violations = [(path_of(v.proto), v.proto.rule_id, v.proto.message) for v in found]
    raise invalid(violations)


def invalid(violations: list[tuple[str, str, str]]) -> InvalidArgument:
    """The error for broken rules, each (path, rule id, sentence)."""
    path, _, sentence = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return InvalidArgument(f"{path}: {sentence}{more}", violations=violations)


def check_json(path: str, text: str, kinds: tuple[type, ...] = ()) -> None:
    """Require one JSON value, of one of `kinds` if any are given; NaN, infinities and depth over 1024 are none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        sentence = f"is not a JSON value: {error.msg} at character {error.pos}"
        raise invalid([(path, "json", sentence)]) from None
    if kinds and not isinstance(value, kinds):
        raise invalid([(path, "json.type", "is JSON of another type than is needed here")])


def check_schema(path: str, text: str) -> None:
    """Require a JSON Schema 2020-12 that refers to no other document and is not too much work to check."""
    check_json(path, text, (dict, bool))
    try:
        schema = parse_json(text)
        compiled(schema)
        check_work(schema, 1)
    except ValueError as error:
        sentence = f"is no JSON Schema that can be used: {error}"[:500]
        raise invalid([(path, "json.schema", sentence)]) from None


def check_text(path: str, text: str) -> None:
    """Refuse NUL, which a database cannot keep as text."""
    if "\0" in text:
        raise invalid([(path, "string.nul", "must not hold a NUL character")])


def path_of(violation: protovalidate.ViolationPb) -> str:
    """The path of a broken field as a caller writes it: `turn.input[1].text`, `turn.labels["a"]`."""
    path = ""
    for element in violation.field.elements if violation.field else ():
        path += f".{element.field_name}" if path else str(element.field_name)
        subscript = element.subscript
        if subscript is None:
            continue
        value = subscript.value
        path += f"[{orjson.dumps(value).decode()}]" if isinstance(value, str) else f"[{str(value).lower()}]"
    return path
