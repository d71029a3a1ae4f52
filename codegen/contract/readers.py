"""Readers of one version and messages of another, and the JSON form of both."""

import json
from typing import Any, Literal

import protovalidate
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from codegen.contract.tree import Tree, Version, encode, to_json
from codegen.schema import Schema

Met = Literal["read", "ignored", "refused"]
PAYLOAD = b"type.googleapis.com/"
BACK = "A change inside v1 only adds: undo it, or make it in a new package v2 with an upcaster"


def meet(schema: Schema, envelope: Any) -> Met:
    """What a reader of this version does with an envelope: reads it, skips it, or refuses it."""
    if envelope.type in {name for name, _, _ in schema.events()}:
        return "read"
    return "ignored" if envelope.may_ignore else "refused"


def new_readers_read_old_messages(tree: Tree) -> list[str]:
    """HEAD reads every golden of every release, gives the same JSON and finds it valid."""
    problems: list[str] = []
    schema = tree.head.schema
    validator = protovalidate.Validator()
    for old in tree.snapshots:
        for name, full_name, content, as_json in old.goldens():
            where = f"{name} of {old.name}"
            try:
                message = schema.message_class(full_name).FromString(content)
            except KeyError:
                problems.append(f"{where}: {full_name} is gone. {BACK}")
                continue
            except DecodeError:
                problems.append(f"{where} cannot be read any more. {BACK}")
                continue
            try:
                now = to_json(schema, message)
            except (TypeError, ValueError, KeyError) as error:
                problems.append(f"{where} has no JSON form any more ({error}). {BACK}")
                continue
            if now != as_json:
                problems.append(f"{where} has another JSON form now: {_difference(as_json, now)}. {BACK}")
            broken = validator.collect_violations(message)
            if broken:
                fields = ", ".join(sorted({_path(v) for v in broken}))
                problems.append(
                    f"{where} is not valid any more ({fields}): rules may only loosen; undo the rule"
                )
    return problems


def old_readers_keep_new_messages(tree: Tree) -> list[str]:
    """Every older version reads every newer golden and writes it again byte for byte."""
    problems: list[str] = []
    for old, new in tree.pairs():
        known = {m.full_name for m in old.schema.messages()}
        for name, full_name, content, _ in new.goldens():
            if full_name not in known:
                continue
            where = f"{name} of {new.name}"
            try:
                message = old.schema.message_class(full_name).FromString(content)
            except DecodeError:
                problems.append(f"{where} cannot be read by {old.name}. {BACK}")
                continue
            if encode(message) != content:
                problems.append(
                    f"{where} changes its bytes when {old.name} passes it on: give a new field a number above all "
                    "others of its message, and leave the type of old ones"
                )
            if full_name == "kfm.event.v1.Envelope":
                problems += _unknown_type(old, where, message)
    return problems


def _unknown_type(old: Version, where: str, message: Any) -> list[str]:
    try:
        as_json = to_json(old.schema, message) if meet(old.schema, message) == "read" else None
    except (TypeError, ValueError, KeyError) as error:
        return [f"{where}: {old.name} knows its type and cannot show it as JSON ({error}). {BACK}"]
    url = f"type.googleapis.com/kfm.event.v1.{message.type.partition('.')[0]}"
    if message.payload.type_url != url:
        return [f"{where}: its type and its payload's URL disagree, {old.name} takes it for poison"]
    if as_json is not None and as_json["payload"]["@type"] != url:
        return [f"{where}: its JSON form has lost its type"]
    return []


def json_and_bytes_agree(tree: Tree) -> list[str]:
    """Each golden's JSON, read by its own version, gives its bytes; and the other way round."""
    problems: list[str] = []
    for at in (*tree.snapshots, tree.head):
        for name, full_name, content, as_json in at.goldens():
            kind = at.schema.message_class(full_name)
            try:
                parsed = json_format.Parse(json.dumps(as_json), kind(), descriptor_pool=at.schema.pool)
            except json_format.ParseError as error:
                problems.append(
                    f"The JSON of {name} of {at.name} cannot be read ({error}): restore it from git"
                )
                continue
            if not _same(at.schema, parsed, kind.FromString(content)):
                problems.append(
                    f"The JSON and the bytes of {name} of {at.name} disagree: restore them from git"
                )
    return problems


def _same(schema: Schema, one: Any, other: Any) -> bool:
    if to_json(schema, one) != to_json(schema, other):
        return False
    first, second = encode(one), encode(other)
    return first == second or PAYLOAD in second  # maps inside an Any have no fixed order after JSON


def _path(violation: Any) -> str:
    return ".".join(e.field_name for e in violation.proto.field.elements)


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                return f"{key}.{_difference(old.get(key), new.get(key))}".rstrip(".")
    return f"{old!r} became {new!r}"
