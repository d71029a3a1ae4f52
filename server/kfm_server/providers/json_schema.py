"""JSON Schemas as providers take them: what strict structured output and tools' parameters may hold, and examples."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

_NOT_STRICT: Final = ("allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas")
_NOT_ON_TOP: Final = ("oneOf", "anyOf", "allOf", "enum", "not")
_INNER: Final = ("properties", "$defs", "definitions")
_DEPTH: Final = 20

Schema = Mapping[str, Any]


def strict_problem(schema: Schema) -> str:
    """Why strict structured output does not take a schema; empty if it does."""
    if schema.get("type") != "object" or "anyOf" in schema:
        return "the root must be of the type object"
    for place, inner in _walk(schema, ""):
        for word in _NOT_STRICT:
            if word in inner:
                return f"{place or 'the root'}: {word!r} is not permitted"
        if inner.get("type") == "object" or "properties" in inner:
            if inner.get("additionalProperties") is not False:
                return f"{place or 'the root'}: 'additionalProperties' is required to be false"
            if set(inner.get("properties", {})) != set(inner.get("required", [])):
                return f"{place or 'the root'}: 'required' must name every property"
    return ""


def parameters_problem(schema: Any) -> str:
    """Why a schema cannot be that of a tool's parameters; empty if it can."""
    if not isinstance(schema, dict) or cast("dict[str, Any]", schema).get("type") != "object":
        return "schema must be of the type object"
    for word in _NOT_ON_TOP:
        if word in schema:
            return f"schema must not have {word!r} at the top level"
    return ""


def told_parameters(schema: Schema) -> Schema:
    """A tool's schema as providers take it: without what they refuse at its top. The caller checks with the whole."""
    if any(word in schema for word in _NOT_ON_TOP):
        return {k: v for k, v in schema.items() if k not in _NOT_ON_TOP}
    return schema


def example(schema: Schema) -> Any:
    """The smallest value that fits a schema, as far as the common keywords go."""
    return _example(schema, schema, 0)


def _example(schema: Any, root: Schema, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _DEPTH:
        return None
    own = cast("dict[str, Any]", schema)
    if "$ref" in own:
        return _example(_resolved(own["$ref"], root), root, depth + 1)
    if "const" in own:
        return own["const"]
    if own.get("enum"):
        return own["enum"][0]
    if "default" in own:
        return own["default"]
    for word in ("anyOf", "oneOf", "allOf"):
        if own.get(word) and "type" not in own:
            return _example(own[word][0], root, depth + 1)
    kind: Any = own.get("type", "object" if "properties" in own else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        inner: dict[str, Any] = own.get("properties", {})
        return {name: _example(inner.get(name), root, depth + 1) for name in own.get("required", [])}
    if kind == "array":
        return [_example(own.get("items"), root, depth + 1) for _ in range(own.get("minItems", 0))]
    if kind in ("integer", "number"):
        low = own.get("minimum", own.get("exclusiveMinimum", -1) + 1)
        return min(low, own["maximum"]) if "maximum" in own else low
    if kind == "string":
        return "x" * own.get("minLength", 0) or "text"[: own.get("maxLength", 4)]
    return False if kind == "boolean" else None


def _resolved(reference: str, root: Schema) -> Any:
    value: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        value = value.get(part) if part and isinstance(value, dict) else value
    return value


def _walk(schema: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and every schema within it."""
    if not isinstance(schema, dict) or place.count(".") > _DEPTH:
        return
    own = cast("dict[str, Any]", schema)
    yield place, own
    for word in _INNER:
        for name, inner in own.get(word, {}).items():
            yield from _walk(inner, f"{place}.{name}")
    yield from _walk(own.get("items"), f"{place}[]")
    for inner in own.get("anyOf", []):
        yield from _walk(inner, place)
