"""protoc plugin for the API reference in Markdown: services, events, messages and errors."""

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from codegen.plugin import Files, release, run
from codegen.schema import OPTIONS, Schema, idempotency, split_example

NOTE = "<!-- Generated from proto/ by codegen/protoc_gen_reference.py; never edited. -->\n"

DOORS = (
    "This release serves gRPC, MCP tools (`kfm mcp`, and `/mcp` on the HTTP port), and over HTTP the health and the metrics. REST\n"
    "routes are the contract for a door to come: they are fixed here, and nothing answers at them yet.\n"
)


def generate(schema: Schema) -> Files:
    """Four pages and their index."""
    pages = {
        "services.md": _services(schema),
        "events.md": _events(schema),
        "types.md": _types(schema),
        "errors.md": _errors(schema),
    }
    titles = {
        "services.md": "RPCs",
        "events.md": "Events",
        "types.md": "Messages and enums",
        "errors.md": "Errors",
    }
    index = f"# Reference\n\nSchema release {release()}.\n\n{DOORS}\n"
    index += "".join(f"- [{titles[p]}]({p})\n" for p in pages)
    index += "- [JSON Schemas of the events](schemas/)\n"
    return {name: NOTE + text for name, text in {"README.md": index, **pages}.items()}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _link(full_name: str) -> str:
    name = full_name.rsplit(".", 1)[-1]
    return f"[{name}](types.md#{name.lower()})" if full_name.startswith("kfm.") else name


def _type(field: FieldDescriptor) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        key, value = message.fields_by_name["key"], message.fields_by_name["value"]
        return f"map of {_type(key)} to {_type(value)}"
    if message is not None:
        name = _link(message.full_name)
    elif field.enum_type is not None:
        name = _link(field.enum_type.full_name)
    else:
        name = next(
            n.removeprefix("TYPE_").lower()
            for n, v in vars(FieldDescriptor).items()
            if n.startswith("TYPE_") and v == field.type
        )
    return f"list of {name}" if field.is_repeated else name


def _rules(schema: Schema, field: FieldDescriptor) -> str:
    rules = schema.rules(field)
    return f"`{' '.join(str(rules).split())}`" if rules is not None else ""


def _fields(schema: Schema, message: Descriptor) -> str:
    if not message.fields:
        return "No fields.\n"
    rows = ["| no. | field | type | what | rules |", "|---|---|---|---|---|"]
    for f in message.fields:
        what = schema.comment(f"{message.full_name}.{f.name}")
        if f.containing_oneof is not None:
            what += f" One of `{f.containing_oneof.name}`."
        rows.append(f"| {f.number} | `{f.name}` | {_type(f)} | {_cell(what)} | {_cell(_rules(schema, f))} |")
    return "\n".join(rows) + "\n"


def _services(schema: Schema) -> str:
    out = [f"# RPCs\n\n{DOORS}"]
    last = ""
    for package, service, method in schema.methods():
        full = f"{package}.{service.name}"
        if full != last:
            out.append(f"## {full}\n\n{schema.comment(full)}\n")
            last = full
        path = f"/{full}/{method.name}"
        options = schema.method_options(path, method)
        text, example = split_example(schema.comment(f"{full}.{method.name}"))
        http = schema.http(method)
        stream = "a stream of " if method.server_streaming else ""
        facts = [
            f"- gRPC: `{path}`, {_link(method.input_type[1:])} to {stream}{_link(method.output_type[1:])}",
            f"- REST: `{http[0]} {http[1]}`" if http else "- REST: none",
            f"- MCP: `{options.mcp.name}`"
            if options.HasField("mcp")
            else f"- MCP: no tool; {options.not_in_mcp}",
            f"- scope `{options.scope}`, {idempotency(method).lower().replace('_', ' ')}",
        ]
        out.append(f"### {method.name}\n\n{text}\n\n" + "\n".join(facts) + "\n")
        if example:
            out.append(f"```json\n{example}\n```\n")
    return "\n".join(out)


def _events(schema: Schema) -> str:
    topics = schema.topics()
    out = ["# Events\n"]
    for name, message, options in schema.events():
        ignore = " A reader that does not know it may skip it." if options.may_ignore else ""
        out.append(
            f"## {name}\n\n{schema.comment(message.full_name)}\n\nTopic `{topics[options.topic]}`, "
            f"version {options.spec_version}.{ignore} [JSON Schema](schemas/{name}.json)\n"
        )
        out.append(_fields(schema, message))
    return "\n".join(out)


def _types(schema: Schema) -> str:
    out = ["# Messages and enums\n"]
    messages = [m for m in schema.messages() if m.file.package != OPTIONS]
    for message in sorted(messages, key=lambda m: m.name):
        out.append(f"## {message.name}\n\n`{message.full_name}`. {schema.comment(message.full_name)}\n")
        out.append(_fields(schema, message))
    for enum in sorted(schema.enums(), key=lambda e: e.name):
        if enum.file.package != OPTIONS and enum.full_name != "kfm.error.v1.Reason":
            out.append(_enum(schema, enum))
    return "\n".join(out)


def _enum(schema: Schema, enum: EnumDescriptor) -> str:
    rows = [f"## {enum.name}\n\n`{enum.full_name}`. {schema.comment(enum.full_name)}\n"]
    rows += ["| no. | value | what |", "|---|---|---|"]
    for value in enum.values:
        rows.append(
            f"| {value.number} | `{value.name}` | {_cell(schema.comment(f'{enum.full_name}.{value.name}'))} |"
        )
    return "\n".join(rows) + "\n"


def _errors(schema: Schema) -> str:
    rows = [
        "# Errors\n",
        "Every door derives from this table: gRPC status with ErrorInfo (domain `kfm`), problem+json, exit codes.\n",
        "| no. | reason | gRPC | HTTP | exit | retry | what |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, number, o in schema.error_rows():
        retry = "yes" if o.retryable else "no"
        rows.append(
            f"| {number} | `{name}` | {o.grpc_code} | {o.http_status} | {o.exit_code} | {retry} | {_cell(o.summary)} |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    run(generate)
