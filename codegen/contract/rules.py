"""Validation rules may only loosen: `buf breaking` does not look at them."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from codegen.contract.tree import Tree

LOWER = ("gte", "gt", "min_len", "min_bytes", "min_items", "min_pairs")
UPPER = ("lte", "lt", "max_len", "max_bytes", "max_items", "max_pairs")
UNDO = "rules may only loosen inside v1: undo it, or make it in a new package v2"


def rules_only_loosen(tree: Tree) -> list[str]:
    """Every rule of a newer version accepts whatever the older one accepted."""
    problems: list[str] = []
    for old, new in tree.pairs():
        fields = {f.full_name: f for m in old.schema.messages() for f in m.fields}
        messages = {m.full_name: m for m in old.schema.messages()}
        for message in new.schema.messages():
            if message.full_name not in messages:
                continue
            for oneof in message.oneofs:
                before = messages[message.full_name].oneofs_by_name.get(oneof.name)
                if before is None:
                    continue
                was = old.schema.option(before.GetOptions(), "buf.validate.oneof")
                now = new.schema.option(oneof.GetOptions(), "buf.validate.oneof")
                if now is not None and now.required and not (was is not None and was.required):
                    problems.append(
                        f"{message.full_name}.{oneof.name} became required since {old.name}: {UNDO}"
                    )
            was = old.schema.option(messages[message.full_name].GetOptions(), "buf.validate.message")
            now = new.schema.option(message.GetOptions(), "buf.validate.message")
            problems += [f"{message.full_name} {p} since {old.name}: {UNDO}" for p in tightened(was, now)]
            for field in message.fields:
                was = old.schema.rules(fields[field.full_name]) if field.full_name in fields else None
                now = new.schema.rules(field)
                if field.full_name not in fields:
                    if _needs_value(now):
                        problems.append(
                            f"{field.full_name} is new since {old.name} and required: old clients do not send it; "
                            "make it optional with a default that means `as before`"
                        )
                    continue
                problems += [f"{field.full_name} {p} since {old.name}: {UNDO}" for p in tightened(was, now)]
    return problems


def tightened(old: Any, new: Any) -> list[str]:
    """In what ways new rules refuse what old ones took; each as the end of a sentence."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    out: list[str] = []
    for path, value in after.items():
        name = path.rsplit(".", 1)[-1]
        was = before.get(path)
        if was == value or value is False:
            continue
        if name in LOWER and was is not None and value < was:
            continue
        if name in UPPER and was is not None and value > was:
            continue
        if name == "in" and was is not None and set(was) <= set(value):
            continue
        if name == "not_in" and was is not None and set(value) <= set(was):
            continue
        out.append(f"has a tighter rule {path}: {value!r}" + (f" (was {was!r})" if was is not None else ""))
    return out


def _needs_value(rules: Any) -> bool:
    if rules is None:
        return False
    if rules.required:
        return True
    return any(path.rsplit(".", 1)[-1] in LOWER and value not in (0, -1) for path, value in _leaves(rules))


def _leaves(rules: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if rules is None:
        return
    for field, value in rules.ListFields():
        path = f"{prefix}{field.name}"
        if field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated:
            if field.message_type.full_name in ("google.protobuf.Duration", "google.protobuf.Timestamp"):
                yield path, value.seconds * 10**9 + value.nanos
            else:
                yield from _leaves(value, f"{path}.")
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value:
                yield f"{path}.{getattr(item, 'id', '') or item}", str(item)
        elif field.is_repeated:
            yield path, tuple(value)
        else:
            yield path, value
