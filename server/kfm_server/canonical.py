"""JSON as the engine keeps it: one text for one value, so that digests and replays agree."""

import math
import re
from typing import Any, TypeAlias

import orjson

MAX_DEPTH = 100
"""Deepest nesting of a value that is read, checked or written."""

_INT_BITS = 64
_Path: TypeAlias = "tuple[_Path, str | int] | None"
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_OPTIONS = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


def canonical_json(value: Any) -> str:
    """The canonical text of a JSON value: keys sorted, no spaces, UTF-8.

    Raises ValueError, with the path of the offending part, for what JSON cannot hold without loss:
    NaN and infinities, integers beyond 64 bits, keys that are not strings, foreign types, lone
    surrogates, nesting deeper than MAX_DEPTH.
    """
    _check(value, None, 0)
    return _dump(value)


def canonical_parsed(value: Any) -> str:
    """As `canonical_json`, for a value that `parse_json` gave, whole or in part: it needs no second look."""
    return _dump(value)


def sanitised_json(value: Any) -> str:
    """As `canonical_json`, with control characters other than newline and tab taken out of all strings."""
    return _dump(_clean(value, None, 0))


def clean_text(text: str) -> str:
    """The text without control characters other than newline and tab; lone surrogates are dropped too."""
    return text if text.isprintable() else _UNWANTED.sub("", text)


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError if it is none, or is nested deeper than MAX_DEPTH."""
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    # What was read from a text can only be nested too deeply; with few brackets it cannot even be that.
    if text.count("{") + text.count("[") > MAX_DEPTH:
        _check(value, None, 0)
    return value


def pointer_token(name: str) -> str:
    """One name of a JSON pointer, escaped as RFC 6901 says."""
    return name if name.isalnum() else name.replace("~", "~0").replace("/", "~1")


def _dump(value: Any) -> str:
    try:
        return orjson.dumps(value, option=_OPTIONS).decode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from None


def _place(path: _Path) -> str:
    """A path as a JSON pointer; made of its parts only when it has to be told."""
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append("/" + pointer_token(str(name)))
    return "".join(reversed(names)) or "/"


def _check_number(value: int | float, path: _Path) -> None:
    if isinstance(value, int):
        if not -(1 << (_INT_BITS - 1)) <= value < 1 << _INT_BITS:
            raise ValueError(f"{_place(path)}: an integer beyond {_INT_BITS} bits")
    elif not math.isfinite(value):
        raise ValueError(f"{_place(path)}: {value} is not a JSON number")


def _check(value: Any, path: _Path, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int or kind is float:
        _check_number(value, path)
        return
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if kind is dict:
        for name, item in value.items():
            _check_name(name, path)
            _check(item, (path, name), depth + 1)
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            _check(item, (path, index), depth + 1)
    else:
        raise ValueError(f"{_place(path)}: a {kind.__name__} is not a JSON value")


def _check_name(name: Any, path: _Path) -> None:
    if type(name) is not str:
        raise ValueError(f"{_place(path)}: the key {name!r:.40} is not a string")


def _clean(value: Any, path: _Path, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if kind is bool or value is None:
        return value
    if kind is int or kind is float:
        _check_number(value, path)
        return value
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if kind is dict:
        cleaned: dict[str, Any] = {}
        for name, item in value.items():
            _check_name(name, path)
            cleaned[clean_text(name)] = _clean(item, (path, name), depth + 1)
        return cleaned
    if kind is list or kind is tuple:
        return [_clean(item, (path, index), depth + 1) for index, item in enumerate(value)]
    raise ValueError(f"{_place(path)}: a {kind.__name__} is not a JSON value")
