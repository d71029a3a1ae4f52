"""What planners and the plan's checks know of tools: data only, the same for all who look."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationError
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
    quick: bool = False
    pool: str = ""
    """The worker pool that performs it; empty: the server itself."""
    reserved: bool = False
    """Only for personalities that name it."""

    @cached_property
    def validator(self) -> Draft202012Validator:
        """The schema, compiled once. Raises ValueError for one that is none, or that refers to another document."""
        return compiled(dict(self.input_schema))

    def errors(self, arguments: Mapping[str, Any]) -> Iterable[ValidationError]:
        """All that is wrong with the arguments."""
        return self.validator.iter_errors(arguments)

    def problem(self, arguments: Mapping[str, Any]) -> str:
        """What is wrong with the arguments, in one sentence about the outermost place; empty if nothing."""
        if self.validator.is_valid(arguments):
            return ""
        return describe(min(self.errors(arguments), key=lambda error: len(error.instance_path)))


def compiled(schema: Any) -> Draft202012Validator:
    """A JSON Schema made ready. Raises ValueError for one that is none, or that refers to another document."""
    return Draft202012Validator(schema, retriever=_nothing_is_fetched)


ToolCatalogue = Mapping[str, ToolEntry]
"""The tools that a turn may use, by name."""


def describe(error: ValidationError) -> str:
    """A schema violation as a sentence that names the place as a JSON pointer."""
    place = "".join("/" + pointer_token(str(name)) for name in error.instance_path)
    message = error.message if len(error.message) <= 300 else f"{error.message[:200]}…"
    return f"{place}: {message}" if place else message


def catalogue_digest(catalogue: ToolCatalogue) -> str:
    """Hex SHA-256 over all entries: equal exactly if the tools promise the same."""
    body = [
        [entry.name, entry.description, int(entry.effect), dict(entry.input_schema), entry.compensation]
        + ([entry.pool] if entry.pool else [])
        + (["reserved"] if entry.reserved else [])
        for _, entry in sorted(catalogue.items())
    ]
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def _nothing_is_fetched(uri: str) -> Any:
    raise ValueError(f"{uri} is another document, and schemas are not fetched")
