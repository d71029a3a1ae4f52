"""Our own options and the MCP tools: what `buf breaking` cannot see."""

from collections.abc import Iterator
from typing import Any

from codegen.contract.tree import Tree
from codegen.schema import OPTIONS, Schema, idempotency

Facts = dict[str, dict[str, Any]]


def facts(schema: Schema) -> Facts:
    """Everything that clients, topics and doors rely on, by symbol and name."""
    out: Facts = {}
    topics = schema.topics()
    for name, _, options in schema.events():
        out[name] = {"topic": topics.get(options.topic, ""), "may_ignore": options.may_ignore}
    for package, service, method in schema.methods():
        path = f"/{package}.{service.name}/{method.name}"
        own = schema.method_options(path, method)
        out[path] = {
            "scope": own.scope,
            "rate_class": own.rate_class,
            "long_running": own.long_running,
            "MCP tool": own.mcp.name or None,
            "HTTP route": schema.http(method),
            "idempotency_level": idempotency(method),
        }
    for name, number, row in schema.error_rows():
        out[name] = {
            "number": number,
            "grpc_code": row.grpc_code,
            "http_status": row.http_status,
            "exit_code": row.exit_code,
            "retryable": row.retryable,
        }
    for number, name in topics.items():
        out[f"topic {number}"] = {"name": name}
    for value in schema.pool.FindEnumTypeByName("kfm.type.v1.EffectContract").values:
        own = schema.option(value.GetOptions(), f"{OPTIONS}.effect")
        out[value.name] = {
            "rerun": bool(own is not None and own.rerun),
            "dispatch_first": bool(own is not None and own.dispatch_first),
        }
    for message in schema.messages():
        for field in message.fields:
            out[field.full_name] = {"debug_redact": field.GetOptions().debug_redact}
    return out


def options_stay(tree: Tree) -> list[str]:
    """No released option changes: topics, scopes, routes, tool names, codes, redaction, idempotency."""
    problems: list[str] = []
    for old, new in tree.pairs():
        now = facts(new.schema)
        for symbol, before in facts(old.schema).items():
            if symbol not in now:
                continue
            for name, value in before.items():
                after = now[symbol][name]
                if after == value or value is None or (name == "debug_redact" and after):
                    continue
                problems.append(
                    f"{symbol}: {name} was {value!r} in {old.name} and is {after!r} in {new.name}: clients rely on "
                    "it; set it back, or add a new symbol beside this one"
                )
    return problems


def mcp_inputs_only_widen(tree: Tree) -> list[str]:
    """A call that a released tool took is taken by every later version of the tool."""
    problems: list[str] = []
    for old, new in tree.pairs():
        now = {t["name"]: t for t in new.tools}
        for tool in old.tools:
            name = tool["name"]
            if name not in now:
                problems.append(f"MCP tool {name} of {old.name} is gone in {new.name}: bring it back")
                continue
            for what in narrowed(tool["inputSchema"], now[name]["inputSchema"], ""):
                problems.append(f"MCP tool {name}: {what} since {old.name}: inputs may only widen; undo it")
    return problems


def narrowed(old: Any, new: Any, path: str) -> Iterator[str]:
    """In what ways a new input schema refuses what the old one took; each as a phrase."""
    where = path or "the input"
    if old.get("type") != new.get("type"):
        yield f"{where} was {old.get('type')} and is {new.get('type')}"
        return
    for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"{where} requires {name}"
    for name, value in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{where} lost {name}"
        else:
            yield from narrowed(value, new["properties"][name], f"{path}.{name}".lstrip("."))
    if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
        yield f"{where} refuses additional properties"
    if "enum" in new and not set(old.get("enum", ())) <= set(new["enum"]):
        yield f"{where} lost values"
    if "enum" in new and "enum" not in old:
        yield f"{where} became an enum"
    for key, tighter in (
        ("minimum", 1),
        ("minLength", 1),
        ("minItems", 1),
        ("maximum", -1),
        ("maxLength", -1),
        ("maxItems", -1),
        ("maxProperties", -1),
    ):
        if key in new and (key not in old or (new[key] - old[key]) * tighter > 0):
            yield f"{where} has a tighter {key}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{where} has another pattern"
    if "items" in old:
        yield from narrowed(old["items"], new.get("items", {}), f"{path}[]")
