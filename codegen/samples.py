"""Golden messages: one value of every message with every field set, the same on every run, valid under its rules."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from codegen.schema import OPTIONS, Schema

ULID = "01JB3V5K2M9Q7Z4X8W6T1R0P3N"
BY_NAME: dict[str, Any] = {
    "turn_id": f"turn_{ULID}",
    "root_turn_id": f"turn_{ULID}",
    "parent_turn_id": f"turn_{ULID}",
    "blocking_turn_id": f"turn_{ULID}",
    "session_id": f"ses_{ULID}",
    "event_id": f"turn_{ULID}.17",
    "dead_letter_id": f"evt_{ULID}",
    "idempotency_key": "key-1",
    "personality": "default@1.2.3",
    "step_key": "s1",
    "fork_step_key": "s1",
    "key": "s1",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "schema_release": "1.0.0",
    "types": "TurnStateEvent.v1",
    "labels": {"team": "döner"},
    "pool": "gpu",
    "name": "lathe_turn",
}
BY_FULL_NAME: dict[str, Any] = {
    **{
        f"kfm.memory.v1.{name}Request.collection": "handbook"
        for name in ("PutDocument", "ListDocuments", "RemoveDocument", "DropCollection")
    },
    "kfm.memory.v1.SearchKnowledgeRequest.collections": ("handbook", "travel"),
    "kfm.provider.v1.PromptTool.name": "calculator",
    "kfm.pack.v1.Manifest.name": "analyst",
    "kfm.pack.v1.Manifest.version": "1.2.3",
    "kfm.pack.v1.Manifest.planner": "react",
    "kfm.pack.v1.Manifest.models": ("small", "large"),
    "kfm.pack.v1.Manifest.uses": ("calculator", "todo_store"),
    "kfm.pack.v1.PackPrompts.system": "prompts/system.md",
    "kfm.pack.v1.PackTool.source": "tools/lathe.py",
    "kfm.pack.v1.PackTool.function": "turn",
    "kfm.pack.v1.PackKnowledge.files": ("knowledge/*.md",),
    "kfm.personality.v1.GetPersonalityRequest.name": "analyst",
}
FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
WIDE = (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)
BEYOND_DOUBLE = 2**53 + 1


def samples(schema: Schema) -> Iterator[tuple[str, Message]]:
    """Every golden as (file name, message): each message, each arm of its oneofs, an envelope per event."""
    for message in schema.messages():
        if message.file.package == OPTIONS or message.full_name == "kfm.event.v1.Envelope":
            continue
        yield message.full_name, fill(schema, message)
        for oneof in message.oneofs:
            for arm in list(oneof.fields)[1:]:
                yield f"{message.full_name}.{arm.name}", fill(schema, message, arms=(arm.name,))
    for name, message, _ in schema.events():
        yield f"kfm.event.v1.Envelope.{message.name}", envelope(schema, name)


def envelope(schema: Schema, type_name: str) -> Any:
    """An envelope that holds the sample of an event."""
    known = {name: (message, options) for name, message, options in schema.events()}
    message, options = known[type_name]
    out: Any = fill(schema, schema.pool.FindMessageTypeByName("kfm.event.v1.Envelope"))
    out.type = type_name
    out.spec_version = options.spec_version
    out.may_ignore = options.may_ignore
    out.payload.type_url = f"type.googleapis.com/{message.full_name}"
    out.payload.value = fill(schema, message).SerializeToString(deterministic=True)
    return out


def fill(schema: Schema, message: Descriptor, *, arms: tuple[str, ...] = (), depth: int = 0) -> Any:
    """A message with every field set; of a oneof the first arm, or the one named in `arms`."""
    if message.full_name == "google.protobuf.Timestamp":
        return schema.message_class(message.full_name)(seconds=1_767_323_045, nanos=678_901_000)
    if message.full_name == "google.protobuf.Duration":
        return schema.message_class(message.full_name)(seconds=1, nanos=500_000_000)
    if message.full_name == "google.protobuf.Struct":
        struct: Any = schema.message_class(message.full_name)()
        struct.fields["type"].string_value = "object"
        return struct
    if message.full_name == "google.protobuf.Value":
        return schema.message_class(message.full_name)(string_value="döner")
    if message.full_name == "kfm.event.v1.Envelope" and depth:
        return envelope(schema, "TurnStateEvent.v1")
    out: Any = schema.message_class(message.full_name)()
    chosen = {next((f.name for f in o.fields if f.name in arms), o.fields[0].name) for o in message.oneofs}
    for field in message.fields:
        if field.containing_oneof is None or field.name in chosen:
            _set(schema, out, field, depth)
    return out


def _set(schema: Schema, out: Any, field: FieldDescriptor, depth: int) -> None:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        whole = kind.fields_by_name["value"].cpp_type == FieldDescriptor.CPPTYPE_INT64
        plain: dict[str, Any] = {"a": 1, "b": 2} if whole else {"a": "1", "b": "2"}
        getattr(out, field.name).update(BY_NAME.get(field.name, plain))
    elif kind is not None:
        if depth > 6 or kind.full_name == "google.protobuf.Any":
            return
        value = fill(schema, kind, depth=depth + 1)
        if field.is_repeated:
            getattr(out, field.name).append(value)
        else:
            getattr(out, field.name).CopyFrom(value)
    elif field.is_repeated and field.full_name in BY_FULL_NAME:
        getattr(out, field.name).extend(BY_FULL_NAME[field.full_name])
    elif field.is_repeated:
        getattr(out, field.name).extend([_scalar(schema, field), _scalar(schema, field)])
    else:
        setattr(out, field.name, _scalar(schema, field))


def _scalar(schema: Schema, field: FieldDescriptor) -> Any:
    if field.full_name in BY_FULL_NAME:
        return BY_FULL_NAME[field.full_name]
    if field.name in BY_NAME:
        return BY_NAME[field.name]
    if field.enum_type is not None:
        return field.enum_type.values[1].number
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"\x00\xff\x0a bytes"
    if field.type in FLOATS:
        return 0.5
    if field.type == FieldDescriptor.TYPE_STRING:
        return '{"a":1}' if field.name.endswith("_json") else f"{field.name} é"
    return BEYOND_DOUBLE if field.type in WIDE and schema.rules(field) is None else 7
