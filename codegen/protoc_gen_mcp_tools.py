"""protoc plugin for the tools of the Model Context Protocol, within the limits of the strictest hosts.

Names are [a-z0-9_], at most 40 characters. Schemas are plain objects without $ref, unions or untyped
properties; the arms of a oneof become optional siblings. One schema stays below 1 kB, the list of a group below 8 kB.
"""

import json
import re
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor

from codegen.json_types import KNOWN, Json, apply_rules, field_schema
from codegen.plugin import Files, run
from codegen.schema import Schema, SchemaError, idempotency, split_example

NAME = re.compile(r"^kfm_[a-z0-9_]{1,36}$")
CLAUSE = re.compile(r"[.;:,]\s")
SCHEMA_BYTES = 1024
LIST_BYTES = 8192
UNSENT = ("group", "path", "longRunning")
MADE_BY_BRIDGE = "idempotency_key"


def generate(schema: Schema) -> Files:
    """`mcp_tools.json`: the tools in the order of the RPCs."""
    found = tools(schema)
    for group in {tool["group"] for tool in found}:
        sent = [{k: v for k, v in t.items() if k not in UNSENT} for t in found if t["group"] == group]
        size = len(compact(sent))
        if size > LIST_BYTES:
            what = f"the MCP tool list of group {group!r} has {size} bytes"
            raise SchemaError(f"{what}, hosts want at most {LIST_BYTES}: say less")
    return {"kfm/catalogue/mcp_tools.json": json.dumps(found, indent=1) + "\n"}


def compact(value: Any) -> str:
    """JSON without spaces, as it goes over the wire."""
    return json.dumps(value, separators=(",", ":"))


def tools(schema: Schema) -> list[Json]:
    """Every tool; SchemaError if one breaks a limit."""
    out: list[Json] = []
    names: set[str] = set()
    for package, service, method in schema.methods():
        path = f"{package}.{service.name}.{method.name}"
        options = schema.method_options(path, method)
        if not options.HasField("mcp"):
            continue
        if method.server_streaming or method.client_streaming:
            raise SchemaError(f"{path} streams; a tool cannot: set not_in_mcp")
        name = options.mcp.name
        if not NAME.match(name) or name in names:
            raise SchemaError(f"{path}: the tool name {name!r} is taken or not {NAME.pattern}")
        names.add(name)
        text, _ = split_example(schema.comment(path))
        text = text.removeprefix(method.name).strip()
        level = idempotency(method)
        tool: Json = {
            "name": name,
            "title": options.mcp.title,
            "description": text[:1].upper() + text[1:],
            "group": options.mcp.group,
            "path": f"/{package}.{service.name}/{method.name}",
            "longRunning": options.long_running,
            "inputSchema": input_schema(schema, schema.pool.FindMessageTypeByName(method.input_type[1:])),
            "outputSchema": output_schema(schema.pool.FindMessageTypeByName(method.output_type[1:])),
            "annotations": {
                "readOnlyHint": level == "NO_SIDE_EFFECTS",
                "idempotentHint": level != "IDEMPOTENCY_UNKNOWN",
                "destructiveHint": False if level == "NO_SIDE_EFFECTS" else not options.long_running,
                "openWorldHint": options.long_running,
            },
        }
        for part in ("inputSchema", "outputSchema"):
            size = len(compact(tool[part]))
            if size > SCHEMA_BYTES:
                raise SchemaError(f"{path}: its {part} has {size} bytes, hosts want at most {SCHEMA_BYTES}")
        out.append(tool)
    return out


def input_schema(schema: Schema, message: Descriptor, *, depth: int = 0) -> Json:
    """What a model may send. Comments stand on the outer two levels, bounds on the first: the server checks
    all of them and answers in words. The bridge makes the idempotency key.
    """

    def nested(kind: Descriptor) -> Json:
        return input_schema(schema, kind, depth=depth + 1)

    properties: Json = {}
    required: list[str] = []
    for field in message.fields:
        if field.name == MADE_BY_BRIDGE:
            continue
        one = field_schema(field, nested, _enum, {"type": "integer"})
        if field.message_type is not None and field.message_type.full_name == "google.protobuf.Duration":
            one = {"type": "string", **({"description": "e.g. 30s"} if depth < 2 else {})}
        rules: Json = {}
        if apply_rules(schema, field, rules):
            required.append(field.name)
        if depth == 0:
            one.update(rules)
        if depth < 2 and one.get("type") not in ("object",):
            text = schema.comment(f"{message.full_name}.{field.name}")
            text = text if depth == 0 else CLAUSE.split(text, maxsplit=1)[0].rstrip(".")
            if not {"the", "id", *field.name.split("_")}.issuperset(text.rstrip(".").lower().split()):
                one["description"] = ", ".join(filter(None, (text, one.get("description"))))
        properties[field.name] = one
    out: Json = {"type": "object", "properties": properties}
    if depth == 0:
        out["additionalProperties"] = False
    if required:
        out["required"] = required
    return out


def output_schema(message: Descriptor) -> Json:
    """What a tool answers: two levels of fields; deeper ones are plain objects. Readers allow more."""

    def leaf(kind: Descriptor) -> Json:
        return {"type": "object"}

    def inner(kind: Descriptor) -> Json:
        return {"type": "object", "properties": _outputs(kind, leaf)}

    return {"type": "object", "properties": _outputs(message, inner)}


def _outputs(message: Descriptor, nested: Any) -> Json:
    out: Json = {}
    for field in message.fields:
        one = field_schema(field, nested, lambda _: {"type": "string"}, {"type": "string"})
        if field.message_type is not None and field.message_type.full_name in KNOWN and not field.is_repeated:
            one = {"type": one["type"]}
        out[field.name] = one
    return out


def _enum(kind: EnumDescriptor) -> Json:
    return {"type": "string", "enum": [v.name for v in kind.values if v.number]}


if __name__ == "__main__":
    run(generate)
