"""The registry: which tools this process offers, checked once at the start."""

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import canonical_json
from kfm_server.ports.tools import Tool, ToolSpec
from kfm_server.tool_catalogue import ToolCatalogue, ToolEntry, catalogue_digest
from kfm_server.tools import BUILTIN_TOOLS

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_UNDOING = (types.EFFECT_CONTRACT_IDEMPOTENT, types.EFFECT_CONTRACT_PURE)


class ToolsInvalid(Exception):
    """The configured tools cannot be offered; the message says which and why. It stops the start."""


class ToolRegistry:
    """All tools of a process, and the catalogue that turns pin."""

    def __init__(self, tools: Iterable[Tool] = BUILTIN_TOOLS.values()) -> None:
        """Check the tools and compile their schemas. Raises ToolsInvalid."""
        found: dict[str, Tool] = {}
        entries: dict[str, ToolEntry] = {}
        for tool in tools:
            entry = _entry(tool.spec)
            if entry.name in found:
                raise ToolsInvalid(f"two tools are called {entry.name!r}")
            found[entry.name], entries[entry.name] = tool, entry
        for entry in entries.values():
            _check_compensation(entry, entries)
        self._entries = entries
        self._tools = found
        self._supplied: dict[str, dict[str, Tool]] = {}
        self._awaited: dict[str, str] = {}
        self.tools: Mapping[str, Tool] = MappingProxyType(found)
        """The tools by name."""
        self.catalogue: ToolCatalogue = MappingProxyType(entries)
        """What planners and checks know of them."""
        self.digest: str = catalogue_digest(entries)
        """Hex SHA-256 of the catalogue."""

    def offer(self, pool: str, specs: Iterable[ToolSpec]) -> bool:
        """Take the tools of a worker pool into the catalogue, in place of what was said of them before.

        Answers whether anything has changed. Raises ToolsInvalid, and then nothing has.
        """
        found = {entry.name: entry for entry in (replace(_entry(spec), pool=pool) for spec in specs)}
        after = self._entries | found
        for entry in found.values():
            if entry.name in self.tools:
                raise ToolsInvalid(f"{entry.name}: the server has a tool of this name")
            if entry.effect == types.EFFECT_CONTRACT_TRANSACTIONAL:
                raise ToolsInvalid(f"{entry.name}: a TRANSACTIONAL tool runs in the server only")
            _check_compensation(entry, after)
        digest = catalogue_digest(after)
        changed = digest != self.digest
        if changed:
            self._entries.update(found)
            self.digest = digest
        return changed

    def expect(self, source: str, prefix: str) -> None:
        """Tools whose names begin with the prefix will be supplied by the source."""
        self._awaited[prefix] = source

    def awaited(self, name: str) -> str:
        """Which source is to supply the tool of this name and has supplied nothing yet; empty if none is."""
        return next(
            (
                source
                for prefix, source in self._awaited.items()
                if name.startswith(prefix) and source not in self._supplied
            ),
            "",
        )

    def supply(self, source: str, tools: Iterable[Tool]) -> tuple[bool, list[str]]:
        """Take tools that the server itself performs, in place of those that the source supplied before.

        Answers whether anything has changed, and why some cannot be offered: the others are.
        """
        before = self._supplied.get(source, {})
        for name in before:
            del self._tools[name], self._entries[name]
        taken: dict[str, Tool] = {}
        refused: list[str] = []
        for tool in tools:
            try:
                entry = _entry(tool.spec)
                if entry.name in self._entries:
                    raise ToolsInvalid(f"{entry.name}: there is another tool of this name")
                _check_compensation(entry, self._entries)
            except ToolsInvalid as error:
                refused.append(str(error))
                continue
            taken[entry.name] = self._tools[entry.name] = tool
            self._entries[entry.name] = entry
        self._supplied[source] = taken
        digest = catalogue_digest(self._entries)
        changed, self.digest = digest != self.digest, digest
        return changed, refused


def load_tools(names: str) -> list[Tool]:
    """The tools that a setting names: `module:ATTRIBUTE`, separated by commas; each attribute is a list of tools.

    Raises ToolsInvalid. Importing runs the modules: the setting is the operator's, never a user's.
    """
    tools: list[Tool] = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        module, _, attribute = name.partition(":")
        if not module or not attribute:
            raise ToolsInvalid(f"{name!r} is not of the form module:ATTRIBUTE")
        try:
            value: Any = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the module is the operator's code and may fail in any way
            raise ToolsInvalid(f"{name!r} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(value, list | tuple):
            raise ToolsInvalid(f"{name!r} is not a list of tools")
        for tool in cast("list[Any]", value):
            if not isinstance(getattr(tool, "spec", None), ToolSpec) or not callable(
                getattr(tool, "call", None)
            ):
                raise ToolsInvalid(
                    f"{name!r} holds a {type(tool).__name__}, which has no spec and call of a tool"
                )
            tools.append(cast("Tool", tool))
    return tools


def build_registry(extra: str = "", configured: Iterable[Tool] = ()) -> ToolRegistry:
    """The registry of the built-in tools, of configured ones, and of those that the setting `extra` names.

    Raises ToolsInvalid.
    """
    try:
        return ToolRegistry((*BUILTIN_TOOLS.values(), *configured, *load_tools(extra)))
    except ToolsInvalid:
        raise
    except Exception as error:  # what a tool says of itself is the operator's code, too
        raise ToolsInvalid(
            f"{extra!r} holds a tool whose spec is not as ToolSpec asks: {type(error).__name__}: {error}"
        ) from error


def _entry(spec: ToolSpec) -> ToolEntry:
    if not _NAME.fullmatch(spec.name):
        raise ToolsInvalid(f"{spec.name[:80]!r} is no name of a tool: [a-z][a-z0-9_]*, at most 64")
    if not spec.description.strip():
        raise ToolsInvalid(f"{spec.name}: has no description")
    if spec.effect not in types.EffectContract.values():
        raise ToolsInvalid(f"{spec.name}: has an unknown effect contract")
    schema = dict(spec.input_schema)
    try:
        canonical_json(schema)
    except ValueError as error:
        raise ToolsInvalid(f"{spec.name}: its schema is no JSON: {error}") from None
    if spec.quick and spec.effect != types.EFFECT_CONTRACT_PURE:
        raise ToolsInvalid(f"{spec.name}: only a tool of the contract PURE may be quick")
    effect = spec.effect or types.EFFECT_CONTRACT_AT_MOST_ONCE
    entry = ToolEntry(
        spec.name, spec.description, effect, schema, spec.compensation, spec.quick, reserved=spec.reserved
    )
    try:
        entry.problem({})
    except ValueError as error:
        why = getattr(error, "message", str(error))
        raise ToolsInvalid(f"{spec.name}: its schema is not valid: {why[:300]}") from None
    if schema.get("type") != "object":
        raise ToolsInvalid(f"{spec.name}: its schema must have the type object")
    return entry


def _check_compensation(entry: ToolEntry, entries: Mapping[str, ToolEntry]) -> None:
    compensatable = entry.effect == types.EFFECT_CONTRACT_COMPENSATABLE
    if compensatable != bool(entry.compensation):
        raise ToolsInvalid(
            f"{entry.name}: a compensation goes with the contract COMPENSATABLE, and only with it"
        )
    if not compensatable:
        return
    undoing = entries.get(entry.compensation)
    if undoing is None:
        raise ToolsInvalid(f"{entry.name}: there is no tool {entry.compensation!r} to undo it")
    if undoing.effect not in _UNDOING:
        raise ToolsInvalid(f"{entry.name}: the tool that undoes it, {undoing.name}, must be IDEMPOTENT")
