"""Messages as JSON Schema, in the form that ProtoJSON gives them."""

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from codegen.schema import Schema

Json = dict[str, Any]
F = FieldDescriptor
WIDE = {F.TYPE_INT64, F.TYPE_UINT64, F.TYPE_SINT64, F.TYPE_FIXED64, F.TYPE_SFIXED64}
NARROW = {F.TYPE_INT32, F.TYPE_UINT32, F.TYPE_SINT32, F.TYPE_FIXED32, F.TYPE_SFIXED32}
KNOWN: dict[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d{1,9})?s$"},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
}


def field_schema(
    field: FieldDescriptor,
    nested: Callable[[Descriptor], Json],
    enum: Callable[[EnumDescriptor], Json],
    wide: Json,
) -> Json:
    """The schema of a field. `nested` and `enum` make those of its type, `wide` is that of 64-bit numbers."""
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        value = field_schema(message.fields_by_name["value"], nested, enum, wide)
        return {"type": "object", "additionalProperties": value}
    item = _item(field, nested, enum, wide)
    return {"type": "array", "items": item} if field.is_repeated else item


def _item(
    field: FieldDescriptor,
    nested: Callable[[Descriptor], Json],
    enum: Callable[[EnumDescriptor], Json],
    wide: Json,
) -> Json:
    if field.message_type is not None:
        known = KNOWN.get(field.message_type.full_name)
        return nested(field.message_type) if known is None else dict(known)
    if field.enum_type is not None:
        return enum(field.enum_type)
    if field.type in WIDE:
        return dict(wide)
    if field.type in NARROW:
        return {"type": "integer"}
    if field.type == F.TYPE_BOOL:
        return {"type": "boolean"}
    if field.type == F.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if field.type in (F.TYPE_DOUBLE, F.TYPE_FLOAT):
        return {"type": "number"}
    return {"type": "string"}


def apply_rules(schema: Schema, field: FieldDescriptor, out: Json) -> bool:
    """Add what JSON Schema can say of a field's validation rules; true if the field is required."""
    rules = schema.rules(field)
    if rules is None:
        return False
    target = out
    if field.is_repeated and rules.HasField("repeated"):
        for name, key in (("min_items", "minItems"), ("max_items", "maxItems")):
            if rules.repeated.HasField(name):
                out[key] = getattr(rules.repeated, name)
        return bool(rules.required or rules.repeated.min_items)
    if rules.HasField("map") and rules.map.HasField("max_pairs"):
        out["maxProperties"] = rules.map.max_pairs
    needed = bool(rules.required)
    if rules.HasField("string"):
        text = rules.string
        for name, key in (("min_len", "minLength"), ("max_len", "maxLength"), ("max_bytes", "maxLength")):
            if text.HasField(name):
                target[key] = getattr(text, name)
        if text.HasField("pattern"):
            target["pattern"] = text.pattern
            needed = needed or not text.pattern.endswith(")?$")
        if allowed := list(getattr(text, "in")):
            target["enum"] = allowed
        needed = needed or bool(text.min_len)
    for kind in ("int32", "uint32", "int64", "uint64"):
        if rules.HasField(kind):
            numbers = getattr(rules, kind)
            for name, key in (("gte", "minimum"), ("lte", "maximum")):
                if numbers.HasField(name):
                    target[key] = getattr(numbers, name)
    if rules.HasField("enum"):
        needed = needed or 0 in rules.enum.not_in
    return needed


def document_schema(schema: Schema, message: Descriptor, *, closed: bool = False) -> Json:
    """A message as a complete JSON Schema 2020-12 document; readers keep what they do not know.

    Closed, it is a file's that people write: keys as the proto spells them, others refused, what must be there required.
    """
    defs: dict[str, Json] = {}

    def enum(kind: EnumDescriptor) -> Json:
        defs.setdefault(
            kind.full_name,
            {
                "description": schema.comment(kind.full_name),
                "anyOf": [{"enum": [v.name for v in kind.values]}, {"type": "integer"}],
            },
        )
        return {"$ref": f"#/$defs/{kind.full_name}"}

    def nested(kind: Descriptor) -> Json:
        if kind.full_name not in defs:
            defs[kind.full_name] = {}
            defs[kind.full_name] = body(kind)
        return {"$ref": f"#/$defs/{kind.full_name}"}

    def body(kind: Descriptor) -> Json:
        properties: Json = {}
        required: list[str] = []
        for field in kind.fields:
            wide = {"type": ["string", "integer"], "pattern": r"^-?\d+$"}
            one = field_schema(field, nested, enum, wide)
            name = field.name if closed else field.json_name
            if apply_rules(schema, field, one) and field.containing_oneof is None:
                required.append(name)
            one["description"] = schema.comment(f"{kind.full_name}.{field.name}")
            properties[name] = one
        out: Json = {
            "type": "object",
            "description": schema.comment(kind.full_name),
            "properties": properties,
        }
        return out | {"required": required, "additionalProperties": False} if closed else out

    out = body(message)
    out["$defs"] = dict(sorted(defs.items()))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": message.full_name, **out}
