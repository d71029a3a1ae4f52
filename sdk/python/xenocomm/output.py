"""Answers in the caller's own type: its JSON Schema, and the answer read into it.

Types: dataclasses, TypedDicts, pydantic models, str, int, float, bool, None, list, tuple, dict with text keys, Literal, Enum,
unions, Any, datetime and date, `Annotated[T, "what it is"]`; or a JSON Schema as a mapping, which gives plain JSON.
"""

import dataclasses
import datetime
import json
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NoReturn, TypeVar

from xenocomm._gen import errors
from xenocomm._gen.errors import XenocommError
from xenocomm._gen.types import Turn
from xenocomm.arguments import refuse

T = TypeVar("T")
MAX_SCHEMA_BYTES = 65_536
_SCALARS: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}
_TIMES: dict[Any, str] = {datetime.datetime: "date-time", datetime.date: "date"}


class OutputMismatch(XenocommError):
    """The turn succeeded, and its answer does not fit the caller's type. `turn` is the turn, `violations` say where."""

    row = errors.ERRORS["REASON_OUTPUT_INVALID"]

    def __init__(self, turn: Turn, path: str, why: str) -> None:
        """`path` as `output.items[2].name`."""
        self.turn = turn
        violations = [(path, "output", why)]
        super().__init__(f"{path} {why}", metadata={"turn_id": turn.turn_id}, violations=violations)


class _Misfit(Exception):
    def __init__(self, path: str, why: str) -> None:
        self.path = path
        self.why = why
        super().__init__(f"{path} {why}")


def schema_json(kind: Any) -> str:
    """The JSON Schema of a type, as text. InvalidArgument names the part that has none, or the limit that it passes."""
    try:
        schema = _schema(kind, "output", ())
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise refuse("output", "is nested deeper than 100", "range") from None
    except (TypeError, ValueError) as error:
        raise refuse("output", f"is no JSON: {error}") from None
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise refuse("output", f"has a schema of more than {MAX_SCHEMA_BYTES} bytes", "range")
    return text


def parse(turn: Turn, kind: type[T] | Mapping[str, Any]) -> T:
    """A turn's answer as a value of the type. OutputMismatch."""
    data = next((part.data_json for part in turn.output if part.data_json), None)
    if data is None:
        raise OutputMismatch(turn, "output", "is text and no data")
    try:
        value = json.loads(data)
    except ValueError as error:
        raise OutputMismatch(turn, "output", f"is no JSON: {error}") from None
    try:
        return _value(kind, value, "output")
    except _Misfit as misfit:
        raise OutputMismatch(turn, misfit.path, misfit.why) from None


def _schema(kind: Any, path: str, above: tuple[Any, ...]) -> Any:
    if isinstance(kind, Mapping):
        return kind
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    if kind in _TIMES:
        return {"type": "string", "format": _TIMES[kind]}
    if kind is Any or kind is object:
        return {}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        said = [one for one in arguments[1:] if isinstance(one, str)]
        inner = _schema(arguments[0], path, above)
        return inner | {"description": said[0]} if said else inner
    if origin in (typing.Required, typing.NotRequired):
        return _schema(arguments[0], path, above)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(one, path, above) for one in arguments]}
    if kind is list or origin is list:
        return {"type": "array", "items": _schema(arguments[0] if arguments else Any, f"{path}[]", above)}
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return {"type": "array", "items": _schema(arguments[0], f"{path}[]", above)}
    if origin is tuple:
        items = [_schema(one, f"{path}[{i}]", above) for i, one in enumerate(arguments)]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if kind is dict or (origin is dict and arguments[0] is str):
        inner = _schema(arguments[1] if arguments else Any, f"{path}.*", above)
        return {"type": "object", "additionalProperties": inner}
    if isinstance(kind, type):
        return _class_schema(kind, path, above)
    raise refuse("output", f"cannot be described as JSON Schema: {path} is {kind!r}")


def _class_schema(kind: type[Any], path: str, above: tuple[Any, ...]) -> Any:
    if issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if _is_pydantic(kind):
        return typing.cast(Any, kind).model_json_schema()
    if kind in above:
        raise refuse("output", f"contains itself: {path} is {kind.__name__} again")
    fields = _fields(kind)
    if fields is None:
        raise refuse("output", f"cannot be described as JSON Schema: {path} is {kind.__name__}")
    above = (*above, kind)
    found: dict[str, Any] = {
        "type": "object",
        "properties": {n: _schema(t, f"{path}.{n}", above) for n, (t, _) in fields.items()},
        "required": [name for name, (_, required) in fields.items() if required],
        "additionalProperties": False,
    }
    said = kind.__doc__ or ""
    if said and not said.startswith(f"{kind.__name__}("):  # what dataclass writes of its own
        found["description"] = " ".join(said.split())
    return found


def _fields(kind: type[Any]) -> dict[str, tuple[Any, bool]] | None:
    """Type and necessity of each field, for dataclasses and TypedDicts."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {
            f.name: (
                hints[f.name],
                f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
            )
            for f in dataclasses.fields(kind)
            if f.init
        }
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {name: (hint, name in kind.__required_keys__) for name, hint in hints.items()}
    return None


def _is_pydantic(kind: Any) -> bool:
    """By what it can do: pydantic is the caller's, and never imported here."""
    return callable(getattr(kind, "model_json_schema", None)) and callable(
        getattr(kind, "model_validate", None)
    )


def _value(kind: Any, value: Any, path: str) -> Any:
    if isinstance(kind, Mapping) or kind is Any or kind is object:
        return value
    if kind in _SCALARS:
        return _scalar(kind, value, path)
    if kind in _TIMES:
        return _parsed(kind.fromisoformat, _scalar(str, value, path), path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return _value(arguments[0], value, path)
    if origin is typing.Literal:
        # True is not 1 here, although Python thinks them equal.
        found = [one for one in arguments if one == value and type(one) is type(value)]
        return found[0] if found else _misfit(path, f"must be one of {list(arguments)}", value)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments, value, path)
    if kind is list or origin is list:
        inner = arguments[0] if arguments else Any
        return [_value(inner, one, f"{path}[{i}]") for i, one in enumerate(_as(list, value, path))]
    if origin is tuple:
        items = _as(list, value, path)
        kinds = arguments if Ellipsis not in arguments else (arguments[0],) * len(items)
        if len(items) != len(kinds):
            _misfit(path, f"must have {len(kinds)} items", value)
        return tuple(
            _value(k, one, f"{path}[{i}]") for i, (k, one) in enumerate(zip(kinds, items, strict=True))
        )
    if kind is dict or origin is dict:
        inner = arguments[1] if arguments else Any
        return {name: _value(inner, one, f"{path}.{name}") for name, one in _as(dict, value, path).items()}
    return _class_value(kind, value, path)


def _class_value(kind: Any, value: Any, path: str) -> Any:
    if issubclass(kind, Enum):
        found = [m for m in kind if m.value == value and type(m.value) is type(value)]
        return found[0] if found else _misfit(path, f"must be one of {[m.value for m in kind]}", value)
    if _is_pydantic(kind):
        return _parsed(kind.model_validate, value, path)
    fields = _fields(kind)
    if fields is None:
        raise refuse("output", f"cannot be read into {kind!r}")
    given = _as(dict, value, path)
    for name in given.keys() - fields.keys():
        _misfit(f"{path}.{name}", "is not known", given[name])
    for name, (_, required) in fields.items():
        if required and name not in given:
            _misfit(f"{path}.{name}", "is missing")
    read = {name: _value(fields[name][0], one, f"{path}.{name}") for name, one in given.items()}
    return _parsed(lambda fields: kind(**fields), read, path)


def _union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    deepest: _Misfit | None = None
    for kind in kinds:
        try:
            return _value(kind, value, path)
        except _Misfit as misfit:
            if deepest is None or len(misfit.path) > len(deepest.path):
                deepest = misfit
    if deepest is not None and deepest.path != path:
        raise deepest
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    return _misfit(path, f"must be {names}", value)


def _scalar(kind: type[Any], value: Any, path: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        _misfit(path, f"must be {_SCALARS[kind]}", value)
    return value


def _as(kind: type[Any], value: Any, path: str) -> Any:
    if not isinstance(value, kind):
        _misfit(path, "must be an array" if kind is list else "must be an object", value)
    return value


def _parsed(make: Callable[[Any], Any], value: Any, path: str) -> Any:
    """What a class of the caller's makes of it; its own checks are misfits, too."""
    try:
        return make(value)
    except (ValueError, TypeError) as error:
        raise _Misfit(path, f"does not fit: {' '.join(str(error).split())[:500]}") from None


def _misfit(path: str, why: str, *value: Any) -> NoReturn:
    shown = json.dumps(value[0], ensure_ascii=False) if value else ""
    shown = shown if len(shown) <= 60 else shown[:60] + "…"
    raise _Misfit(path, f"{why}, not {shown}" if value else why)
