"""protoc plugin for the SDK's types: frozen dataclasses over a strict upb parse, enums, errors, the call table."""

import keyword
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from codegen.errors import errors_module
from codegen.plugin import Files, release, run
from codegen.schema import FILES, OPTIONS, Schema, SchemaError, idempotency
from codegen.sdk_templates import METHODS, POOL, TYPES, TYPES_TAIL

WELL_KNOWN = {
    "google.protobuf.Timestamp": ("_dt", "_pb_dt", "datetime"),
    "google.protobuf.Duration": ("_td", "_pb_td", "timedelta"),
    "google.protobuf.Any": ("Payload._from_pb", "Payload._to_pb", "Payload"),
}
SCALARS = {
    FieldDescriptor.TYPE_STRING: ("str", '""'),
    FieldDescriptor.TYPE_BYTES: ("bytes", 'b""'),
    FieldDescriptor.TYPE_BOOL: ("bool", "False"),
    FieldDescriptor.TYPE_DOUBLE: ("float", "0.0"),
    FieldDescriptor.TYPE_FLOAT: ("float", "0.0"),
}


def generate(schema: Schema) -> Files:
    """The modules of `xenocomm._gen`."""
    return {
        "xenocomm/_gen/__init__.py": '"""Generated from proto/; never edited."""\n',
        "xenocomm/_gen/pool.py": POOL,
        "xenocomm/_gen/types.py": _types(schema),
        "xenocomm/_gen/methods.py": _methods(schema),
        "xenocomm/_gen/errors.py": errors_module(
            schema, doc="What a call may fail with.", base="XenocommError"
        ),
    }


def shown(schema: Schema) -> Iterator[Descriptor]:
    """The messages that the SDK shows: all but requests and options."""
    for message in schema.messages():
        if message.file.package not in (OPTIONS, FILES) and not message.name.endswith("Request"):
            yield message


def enum_members(enum: EnumDescriptor) -> Iterator[tuple[str, int]]:
    """The values of an enum without the prefix that proto style asks for."""
    prefix = "".join(f"_{c}" if c.isupper() else c for c in enum.name).lstrip("_").upper() + "_"
    for value in enum.values:
        yield value.name.removeprefix(prefix), value.number


def _types(schema: Schema) -> str:
    parts: list[str] = []
    names: set[str] = set()
    enums = [e for e in schema.enums() if e.file.package != OPTIONS and e.full_name != "kfm.error.v1.Reason"]
    messages = list(shown(schema))
    for item in (*enums, *messages):
        if item.name in names:
            raise SchemaError(f"{item.full_name}: the SDK shows another {item.name}; choose another name")
        names.add(item.name)
    for enum in enums:
        parts.append(_enum(schema, enum))
    for message in messages:
        parts.append(_message(schema, message))
    events = [(name, message) for name, message, _ in schema.events()]
    tail = TYPES_TAIL.format(
        events="\n".join(f'    "{name}": {message.name},' for name, message in events),
        urls="\n".join(f'    "type.googleapis.com/{m.full_name}": {m.name},' for _, m in events),
        classes="\n".join(f'    "{m.full_name}": {m.name},' for m in messages),
        union=" | ".join(m.name for _, m in events),
    )
    exported = sorted([*names, "Event", "EVENTS", "CLASSES", "Payload", "SCHEMA_RELEASE"])
    listed = "__all__ = [\n" + "\n".join(f'    "{n}",' for n in exported) + "\n]\n"
    return TYPES.format(release=release()) + listed + "\n".join(parts) + tail


def _enum(schema: Schema, enum: EnumDescriptor) -> str:
    lines = ["", "", f"class {enum.name}(IntEnum):", f'    """{schema.comment(enum.full_name)}"""', ""]
    for (name, number), value in zip(enum_members(enum), enum.values, strict=True):
        lines.append(f"    {name} = {number}")
        lines.append(f'    """{schema.comment(f"{enum.full_name}.{value.name}")}"""')
    lines += ["", "", f"_{enum.name}: dict[int, {enum.name}] = {{int(e): e for e in {enum.name}}}"]
    return "\n".join(lines)


def _message(schema: Schema, message: Descriptor) -> str:
    lines = ["", "", "@dataclass(frozen=True, slots=True)", f"class {message.name}:"]
    doc = schema.comment(message.full_name)
    if message.fields:
        lines += [f'    """{doc}', "", "    Attributes:"]
        for field in message.fields:
            lines.append(f"        {_name(field)}: {schema.comment(f'{message.full_name}.{field.name}')}")
        lines += ['    """', ""]
    else:
        lines += [f'    """{doc}"""', ""]
    reads: list[str] = []
    writes: list[str] = []
    for field in message.fields:
        annotation, default = _annotation(field)
        lines.append(f"    {_name(field)}: {annotation} = {default}")
        reads.append(_read(field))
        writes += _write(field)
    if message.fields:
        lines.append("")
    lines += _exclusive(message)
    lines += [
        "    @classmethod",
        f"    def from_pb(cls, m: Any) -> {message.name}:",
        '        """Read it from its protobuf message."""',
        *(f'        {o.name} = m.WhichOneof("{o.name}")' for o in message.oneofs if len(o.fields) > 1),
        "        return cls(" + ("" if reads else ")"),
    ]
    lines += [f"            {r}," for r in reads]
    if reads:
        lines.append("        )")
    lines += [
        "",
        "    def to_pb(self) -> Any:",
        '        """The protobuf message, of the SDK\'s own pool. Fields that this release does not know are not in it."""',
        f'        m = pb("{message.full_name}")()',
        *(f"        {w}" for w in writes),
        "        return m",
    ]
    if any(f.message_type and f.message_type.full_name == "google.protobuf.Any" for f in message.fields):
        lines += [
            "",
            "    @property",
            "    def event(self) -> Event | None:",
            '        """The event itself; None if this release of the SDK does not know its type."""',
            "        return self.payload.message if self.payload is not None else None",
        ]
    return "\n".join(lines)


def _exclusive(message: Descriptor) -> list[str]:
    """A check that of each oneof at most one field is given: the message would drop the others silently."""
    checks: list[str] = []
    for oneof in message.oneofs:
        names = [_name(f) for f in oneof.fields]
        if len(names) > 1:
            given = " + ".join(f"(self.{n} is not None)" for n in names)
            checks += [
                f"        if {given} > 1:",
                f'            raise InvalidArgument("{message.name} takes one of {", ".join(names)}")',
            ]
    return ["    def __post_init__(self) -> None:", *checks, ""] if checks else []


def _name(field: FieldDescriptor) -> str:
    return f"{field.name}_" if keyword.iskeyword(field.name) else field.name


def _entry(field: FieldDescriptor) -> Descriptor | None:
    """The entry of a map field; None if it is no map."""
    message = field.message_type
    return message if message is not None and message.GetOptions().map_entry else None


def _in_oneof(field: FieldDescriptor) -> bool:
    return field.containing_oneof is not None


def _item(field: FieldDescriptor) -> tuple[str, str]:
    if field.message_type is not None:
        known = WELL_KNOWN.get(field.message_type.full_name)
        return (known[2] if known else field.message_type.name), "None"
    if field.enum_type is not None:
        return f"{field.enum_type.name} | int", f"{field.enum_type.name}({field.enum_type.values[0].number})"
    return SCALARS.get(field.type, ("int", "0"))


def _annotation(field: FieldDescriptor) -> tuple[str, str]:
    if entry := _entry(field):
        key, value = (_item(entry.fields_by_name[n])[0] for n in ("key", "value"))
        return f"Mapping[{key}, {value}]", "_field(default_factory=dict)"
    item, default = _item(field)
    if field.is_repeated:
        return f"tuple[{item}, ...]", "()"
    if field.message_type is not None or _in_oneof(field):
        return f"{item} | None", "None"
    return item, default


def _decode(field: FieldDescriptor, value: str) -> str:
    if field.message_type is not None:
        known = WELL_KNOWN.get(field.message_type.full_name)
        return f"{known[0] if known else field.message_type.name + '.from_pb'}({value})"
    if field.enum_type is not None:
        return f"_{field.enum_type.name}.get({value}, {value})"
    return value


def _encode(field: FieldDescriptor, value: str) -> str:
    if field.message_type is None:
        return value
    known = WELL_KNOWN.get(field.message_type.full_name)
    return f"{known[1]}({value})" if known else f"{value}.to_pb()"


def _read(field: FieldDescriptor) -> str:
    attribute = f"m.{field.name}" if not keyword.iskeyword(field.name) else f'getattr(m, "{field.name}")'
    if entry := _entry(field):
        value = entry.fields_by_name["value"]
        return (
            f"{{k: {_decode(value, 'v')} for k, v in {attribute}.items()}}"
            if value.message_type
            else f"dict({attribute})"
        )
    if field.is_repeated:
        decoded = _decode(field, "v")
        return f"tuple({attribute})" if decoded == "v" else f"tuple([{decoded} for v in {attribute}])"
    decoded = _decode(field, attribute)
    if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1:
        return f'{decoded} if {field.containing_oneof.name} == "{field.name}" else None'
    if field.message_type is not None or _in_oneof(field):
        return f'{decoded} if m.HasField("{field.name}") else None'
    return decoded


def _write(field: FieldDescriptor) -> list[str]:
    own = f"self.{_name(field)}"
    target = f"m.{field.name}"
    if _entry(field):
        return [f"{target}.update({own})"]
    if field.is_repeated:
        encoded = _encode(field, "v")
        return [
            f"{target}.extend({own})" if encoded == "v" else f"{target}.extend([{encoded} for v in {own}])"
        ]
    if field.message_type is not None:
        return [f"if {own} is not None:", f"    {target}.CopyFrom({_encode(field, own)})"]
    if _in_oneof(field):
        return [f"if {own} is not None:", f"    {target} = {own}"]
    return [f"{target} = {own}"]


def _methods(schema: Schema) -> str:
    rows: list[str] = []
    for package, service, method in schema.methods():
        path = f"/{package}.{service.name}/{method.name}"
        level = idempotency(method)
        rows.append(
            f'    "{service.name}.{method.name}": Method("{path}", "{method.input_type[1:]}", '
            f'"{method.output_type[1:]}", {method.server_streaming}, {level != "IDEMPOTENCY_UNKNOWN"}, '
            f"{level == 'NO_SIDE_EFFECTS'}),"
        )
    return METHODS.format(rows="\n".join(rows))


if __name__ == "__main__":
    run(generate)
