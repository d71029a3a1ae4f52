"""Versions: what changed carries a new number, and what was released stays as it was."""

import hashlib
import json
import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from codegen.contract.tree import Tree, Version, version
from codegen.schema import OPTIONS, OURS, Schema


def closure(schema: Schema, message: Descriptor) -> dict[str, str]:
    """All that a message contains, by full name, as text: fields, rules, enums; no comments, no version."""
    out: dict[str, str] = {}

    def add(kind: Descriptor | EnumDescriptor) -> None:
        if kind.full_name in out or not kind.full_name.startswith("kfm."):
            return
        out[kind.full_name] = _text(schema, kind)
        if isinstance(kind, Descriptor):
            for field in kind.fields:
                for inner in (field.message_type, field.enum_type):
                    if inner is not None:
                        add(inner)

    add(message)
    return out


def _text(schema: Schema, kind: Descriptor | EnumDescriptor) -> str:
    if isinstance(kind, Descriptor):
        from google.protobuf.descriptor_pb2 import DescriptorProto

        proto = DescriptorProto()
        kind.CopyToProto(proto)
        own = schema.message_class("google.protobuf.DescriptorProto").FromString(proto.SerializeToString())
        event = schema.event_options(kind)
        version_text = f'spec_version: "{event.spec_version}"' if event is not None else "\0"
        return str(own).replace(version_text, "")
    from google.protobuf.descriptor_pb2 import EnumDescriptorProto

    values = EnumDescriptorProto()
    kind.CopyToProto(values)
    return str(
        schema.message_class("google.protobuf.EnumDescriptorProto").FromString(values.SerializeToString())
    )


def _events(at: Version) -> Iterator[tuple[str, Descriptor, str]]:
    for name, message, options in at.schema.events():
        yield name, message, options.spec_version


def changed_events_have_a_new_version(tree: Tree) -> list[str]:
    """An event whose closure changed since a release names a later one; one that did not keeps its own."""
    problems: list[str] = []
    for old, new in zip([*tree.snapshots], [*tree.snapshots[1:], tree.head], strict=True):
        release = tree.release if new.name == "HEAD" else new.name
        before = {name: (message, spec) for name, message, spec in _events(old)}
        for name, message, spec in _events(new):
            if name not in before:
                if spec != release:
                    problems.append(f'{name} is new: set its spec_version to "{release}" (it says "{spec}")')
                continue
            first, second = closure(old.schema, before[name][0]), closure(new.schema, message)
            moved = sorted(k for k in {*first, *second} if first.get(k) != second.get(k))
            if moved and spec != release:
                problems.append(
                    f"{name} changed since {old.name} (in {', '.join(moved)}) and its spec_version is still "
                    f'"{spec}": set it to "{release}"'
                    + ("" if release != old.name else ", and raise proto/RELEASE")
                )
            if not moved and spec != before[name][1]:
                problems.append(
                    f'{name} did not change since {old.name}: set its spec_version back to "{before[name][1]}"'
                )
    return problems


def changed_contract_is_a_new_release(tree: Tree) -> list[str]:
    """Once anything differs from the newest snapshot, proto/RELEASE is above it; it never goes back."""
    if not tree.snapshots:
        return []
    newest = tree.snapshots[-1]
    try:
        here, there = version(tree.release), version(newest.name)
    except ValueError:
        return [f"proto/RELEASE says {tree.release!r}: write a semantic version such as 1.2.0"]
    if here < there:
        return [f"proto/RELEASE says {tree.release}, but {newest.name} is released: raise it"]
    if here == there and _ours(tree.head) != _ours(newest):
        return [
            f"The protos differ from release {newest.name}: raise proto/RELEASE, set spec_version of each event "
            "that changed, and run `make release` when the change is done"
        ]
    if here[0] != there[0]:
        return [
            f"proto/RELEASE goes from {newest.name} to {tree.release}: a new major is a new package beside the old "
            "one, and the line of releases stays in its major"
        ]
    return []


def _ours(at: Version) -> list[bytes]:
    files = FileDescriptorSet.FromString(at.image).file
    return [
        f.SerializeToString(deterministic=True)
        for f in sorted(files, key=lambda f: f.name)
        if _counts(f.name)
    ]


def _counts(name: str) -> bool:
    return name.startswith(OURS) and not name.startswith(OPTIONS.replace(".", "/"))


def snapshots_are_as_they_were_released(tree: Tree) -> list[str]:
    """Each file has the hash of its manifest, each manifest that of the changelog, and no file was added."""
    problems: list[str] = []
    log = tree.root / "proto/CHANGELOG.md"
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    kept = dict(re.findall(r"^## (\S+)\n.*?^Manifest: `([0-9a-f]{64})`", text, re.M | re.S))
    for snapshot in tree.snapshots:
        raw = (snapshot.folder / "manifest.json").read_bytes()
        undo = f"`git checkout -- {snapshot.folder.relative_to(tree.root)}`: a release never changes; make a new one"
        if kept.get(snapshot.name) != hashlib.sha256(raw).hexdigest():
            problems.append(f"The manifest of {snapshot.name} is not the one in proto/CHANGELOG.md: {undo}")
        manifest: dict[str, str] = json.loads(raw)
        found = {
            str(p.relative_to(snapshot.folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in snapshot.folder.rglob("*")
            if p.is_file() and p.name != "manifest.json"
        }
        for name in sorted({*manifest, *found}):
            if manifest.get(name) != found.get(name):
                problems.append(f"{snapshot.name}/{name} was edited, added or removed: {undo}")
    for name in kept:
        if name not in {s.name for s in tree.snapshots}:
            problems.append(
                f"Release {name} stands in proto/CHANGELOG.md and has no snapshot: bring it back from git"
            )
    return problems


def third_party_protos_are_as_vendored(tree: Tree) -> list[str]:
    """Each vendored file has the hash that VERSIONS states, and each has a line there."""
    folder = tree.root / "third_party/proto"
    stated: dict[str, str] = {}
    for line in (folder / "VERSIONS").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            path, *_, sha = line.split()
            stated[path] = sha
    found = {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*.proto")
    }
    return [
        f"third_party/proto/{name} is not what VERSIONS states: restore it, or vendor a new version with its "
        "source, version and sha256"
        for name in sorted({*stated, *found})
        if stated.get(name) != found.get(name)
    ]
