"""What planners and the plan's checks know of tools: data only, the same for all who look."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import canonical_json, pointer_token


@dataclass(frozen=True)
class ToolEntry:
    """A tool as the catalogue states it. `input_schema` is a JSON Schema 2020-12 of an object."""

    name: str
    description: str
    effect: types.EffectContract
    input_schema: Mapping[str, Any]
    compensation: str = ""

    @cached_property
    def validator(self) -> Draft202012Validator:
        """The schema, compiled once. The schema itself is checked by whoever registers the tool."""
        return Draft202012Validator(dict(self.input_schema))

    @cached_property
    def _quick(self) -> Callable[[Mapping[str, Any]], bool] | None:
        return _quick_check(self.input_schema)

    def errors(self, arguments: Mapping[str, Any]) -> Iterable[ValidationError]:
        """All that is wrong with the arguments."""
        return self.validator.iter_errors(arguments)

    def problem(self, arguments: Mapping[str, Any]) -> str:
        """What is wrong with the arguments, in one sentence; empty if nothing."""
        if self._quick is not None and self._quick(arguments):
            return ""
        error = best_match(self.validator.iter_errors(arguments))
        return "" if error is None else describe(error)


ToolCatalogue = Mapping[str, ToolEntry]
"""The tools that a turn may use, by name."""


def describe(error: ValidationError) -> str:
    """A schema violation as a sentence that names the place as a JSON pointer."""
    place = "".join("/" + pointer_token(str(name)) for name in error.absolute_path)
    message = error.message if len(error.message) <= 300 else f"{error.message[:200]}…"
    return f"{place}: {message}" if place else message


def catalogue_digest(catalogue: ToolCatalogue) -> str:
    """Hex SHA-256 over all entries: equal exactly if the tools promise the same."""
    body = [
        [entry.name, entry.description, int(entry.effect), dict(entry.input_schema), entry.compensation]
        for _, entry in sorted(catalogue.items())
    ]
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


_PLAIN_OBJECT = frozenset(("type", "properties", "required", "additionalProperties", "title", "description"))
_PLAIN_STRING = frozenset(("type", "minLength", "maxLength", "title", "description"))


def _quick_check(schema: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool] | None:
    """A check of the common case, texts in a closed object, that says yes only if the schema does.

    A no means nothing: the schema itself decides then. None if the schema is not of that form.
    """
    if not _PLAIN_OBJECT.issuperset(schema) or schema.get("type") != "object":
        return None
    required: frozenset[str] = frozenset(schema.get("required", ()))
    texts: dict[str, tuple[int, int]] = {
        name: (rules.get("minLength", 0), rules.get("maxLength", 1 << 62))
        for name, rules in schema.get("properties", {}).items()
        if isinstance(rules, dict) and rules.get("type") == "string" and _PLAIN_STRING.issuperset(rules)
    }

    def check(arguments: Mapping[str, Any]) -> bool:
        for name, value in arguments.items():
            bounds = texts.get(name)
            if bounds is None or type(value) is not str or not bounds[0] <= len(value) <= bounds[1]:
                return False
        return required <= arguments.keys()

    return check
