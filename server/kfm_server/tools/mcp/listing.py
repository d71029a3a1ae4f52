"""What a server says of its tools, as ToolSpecs: others' names, schemas and texts, none of which is believed."""

import re
from collections.abc import Iterable, Mapping

from kfm.type.v1 import type_pb2 as types
from mcp_types import Tool as Listed

from kfm_server.canonical import MAX_DEPTH, canonical_json, clean_text
from kfm_server.ports.mcp_settings import McpServerSpec
from kfm_server.ports.tools import ToolSpec
from kfm_server.schema_work import check_work
from kfm_server.tools.mcp.limits import MAX_DESCRIPTION, MAX_NAME, MAX_SCHEMA_BYTES, MAX_TOOLS

EFFECTS: Mapping[str, types.EffectContract] = {
    "at_most_once": types.EFFECT_CONTRACT_AT_MOST_ONCE,
    "idempotent": types.EFFECT_CONTRACT_IDEMPOTENT,
    "pure": types.EFFECT_CONTRACT_PURE,
}
_UNFIT = re.compile(r"[^a-z0-9_]+")


def specs_of(server: McpServerSpec, listed: Iterable[Listed]) -> tuple[Mapping[str, ToolSpec], list[str]]:
    """The tools that may be used, by the server's own names for them, and why others may not."""
    found: dict[str, ToolSpec] = {}
    refused: list[str] = []
    names: set[str] = set()
    for tool in listed:
        names.add(tool.name)
        if server.tools and tool.name not in server.tools:
            continue
        if len(found) == MAX_TOOLS:
            refused.append(f"it has more tools than max_tools={MAX_TOOLS}: the rest is left out")
            break
        try:
            spec = _spec(server, tool)
            if spec.name in {other.name for other in found.values()}:
                raise ValueError(f"another of its tools is {spec.name}, too")
        except ValueError as error:
            refused.append(f"{clean_text(tool.name)[:80]}: {error}")
        else:
            found[tool.name] = spec
    refused += [f"{name}: it has no such tool" for name in server.tools if name not in names]
    return found, refused


def _spec(server: McpServerSpec, tool: Listed) -> ToolSpec:
    name = f"{server.name}_{_UNFIT.sub('_', tool.name.lower()).strip('_')}"
    if len(name) > MAX_NAME:
        raise ValueError(f"its name would have {len(name)} characters; max_name={MAX_NAME}")
    try:
        size = len(canonical_json(tool.input_schema).encode())
    except ValueError as error:
        raise ValueError(f"its schema is no JSON: {error}") from None
    if size > MAX_SCHEMA_BYTES:
        raise ValueError(f"its schema has {size} bytes; max_schema_bytes={MAX_SCHEMA_BYTES}")
    try:
        check_work(tool.input_schema, MAX_DEPTH)
    except (TypeError, AttributeError):
        raise ValueError("its schema is not valid") from None
    said = clean_text(tool.description or tool.title or "").strip() or f"The tool {name}."
    if len(said) > MAX_DESCRIPTION:
        said = f"{said[:MAX_DESCRIPTION]}…"
    return ToolSpec(name, said, tool.input_schema, _effect(server, tool))


def _effect(server: McpServerSpec, tool: Listed) -> types.EffectContract:
    hints = tool.annotations
    if server.trust_read_only and hints is not None and hints.read_only_hint:
        return types.EFFECT_CONTRACT_PURE
    return EFFECTS[server.effect]
