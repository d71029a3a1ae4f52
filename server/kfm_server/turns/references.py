"""References in arguments: {"$ref": "s1#/pointer"} stands for a part of what step s1 answered."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kfm_server.canonical import canonical_json, parse_json, pointer_token

_REF = re.compile(r"(?P<step>[a-z0-9_.-]{1,64})#(?P<pointer>(?:/.*)?)", re.DOTALL)
_BAD_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class UnresolvedReference(ValueError):
    """A reference that cannot be read, or that names nothing. The message is for the plan's author."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference and where it stands. `tokens` is its pointer, unescaped; `place` a path of keys and indices."""

    step: str
    tokens: tuple[str, ...]
    place: tuple[str | int, ...]


def is_reference(value: Any) -> bool:
    """Whether a JSON value is meant as a reference, be it a good one or not."""
    return isinstance(value, dict) and "$ref" in value


def find_references(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[Reference]:
    """All references in a JSON value, in the order of the text. Raises UnresolvedReference."""
    if is_reference(value):
        yield _read(value, place)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from find_references(item, (*place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from find_references(item, (*place, index))


def resolve_arguments(arguments_json: str, outputs: Mapping[str, str]) -> str:
    """The arguments in canonical form with each reference replaced.

    Args:
        arguments_json: a canonical JSON text, as plan validation leaves it.
        outputs: canonical outputs of the steps that succeeded, by key.

    Raises:
        UnresolvedReference: a reference is malformed, its step has no output, or its pointer names nothing there.
    """
    parsed: dict[str, Any] = {}

    def replace(value: Any, place: tuple[str | int, ...]) -> Any:
        if is_reference(value):
            reference = _read(value, place)
            if reference.step not in parsed:
                if reference.step not in outputs:
                    raise UnresolvedReference(f"{_at(place)}: step {reference.step!r} has no output")
                parsed[reference.step] = parse_json(outputs[reference.step] or "null")
            return lookup(parsed[reference.step], reference)
        if isinstance(value, dict):
            return {name: replace(item, (*place, name)) for name, item in value.items()}
        if isinstance(value, list):
            return [replace(item, (*place, index)) for index, item in enumerate(value)]
        return value

    try:
        if '"$ref"' not in arguments_json:
            return arguments_json
        return canonical_json(replace(parse_json(arguments_json), ()))
    except UnresolvedReference:
        raise
    except ValueError as error:
        raise UnresolvedReference(str(error)) from None


def lookup(document: Any, reference: Reference) -> Any:
    """What the reference's pointer names in a document (RFC 6901). Raises UnresolvedReference."""
    value = document
    for depth, token in enumerate(reference.tokens):
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            pointer = "".join("/" + pointer_token(part) for part in reference.tokens[: depth + 1])
            raise UnresolvedReference(
                f"{_at(reference.place)}: the output of step {reference.step!r} has nothing at {pointer!r}"
            )
    return value


def _read(value: dict[str, Any], place: tuple[str | int, ...]) -> Reference:
    text = value["$ref"]
    if len(value) != 1 or not isinstance(text, str):
        raise UnresolvedReference(
            f'{_at(place)}: a reference is an object with the one key "$ref" and a text'
        )
    match = _REF.fullmatch(text)
    if match is None or _BAD_ESCAPE.search(match["pointer"]):
        raise UnresolvedReference(
            f"{_at(place)}: {text[:100]!r} is no reference; write a step's key, '#' and a JSON pointer, as 's1#/result'"
        )
    tokens = match["pointer"].split("/")[1:]
    return Reference(
        match["step"], tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens), place
    )


def _at(place: tuple[str | int, ...]) -> str:
    return "".join("/" + pointer_token(str(part)) for part in place) or "/"


__all__ = [
    "Reference",
    "UnresolvedReference",
    "canonical_json",
    "find_references",
    "is_reference",
    "lookup",
    "resolve_arguments",
]
