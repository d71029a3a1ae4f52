"""The contract as the generators and the contract tests see it: descriptors, comments and our own options.

Everything lives in a private descriptor pool, so that two versions of the contract fit in one process.
"""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

OURS = "kfm/"
OPTIONS = "kfm.options.v1"
FILES = "kfm.pack.v1"
"""Forms of files: they are on no wire, and the SDK needs no types of them."""
VERBS = ("get", "post", "put", "patch", "delete")


class SchemaError(Exception):
    """The contract breaks a rule of the generators; the message says what to change."""


class Schema:
    """One version of the contract. `files` are all files, imports first; ours are those below `kfm/`."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        """Load the files into a pool of their own; raises TypeError if they do not fit together."""
        self.files: dict[str, FileDescriptorProto] = {}
        self.pool = descriptor_pool.DescriptorPool()
        for file in files:
            self.files[file.name] = file
            bare = FileDescriptorProto()
            bare.CopyFrom(file)
            bare.ClearField("source_code_info")
            self.pool.AddSerializedFile(bare.SerializeToString())
        self.comments: dict[str, str] = {}
        for file in self.files.values():
            self.comments.update(_comments(file))

    @classmethod
    def from_image(cls, image: bytes) -> "Schema":
        """Read a serialised FileDescriptorSet (a buf image is one)."""
        return cls(FileDescriptorSet.FromString(image).file)

    def ours(self) -> list[FileDescriptorProto]:
        """Our own files, by name."""
        return sorted((f for n, f in self.files.items() if n.startswith(OURS)), key=lambda f: f.name)

    def messages(self) -> Iterator[Descriptor]:
        """Every message of ours, nested ones too, map entries not, in the order of the files."""
        for file in self.ours():
            yield from _walk(self.pool.FindFileByName(file.name).message_types_by_name.values())

    def enums(self) -> Iterator[EnumDescriptor]:
        """Every enum of ours at the top of a file."""
        for file in self.ours():
            yield from self.pool.FindFileByName(file.name).enum_types_by_name.values()

    def methods(self) -> Iterator[tuple[str, ServiceDescriptorProto, MethodDescriptorProto]]:
        """Every RPC of ours as (package, service, method)."""
        for file in self.ours():
            for service in file.service:
                for method in service.method:
                    yield file.package, service, method

    def message_class(self, full_name: str) -> type[Message]:
        """The class of a message in this version; KeyError if it has none."""
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(full_name))

    def option(self, options: Message, extension: str) -> Any:
        """The value of one of the contract's extensions, or None if it is not set."""
        own = self.message_class(options.DESCRIPTOR.full_name)
        parsed = own.FromString(options.SerializeToString(deterministic=True))
        try:
            field: Any = self.pool.FindExtensionByName(extension)
        except KeyError:
            return None
        return parsed.Extensions[field] if parsed.HasExtension(field) else None

    def event_options(self, message: Descriptor) -> Any:
        """`kfm.options.v1.EventOptions` of a message, or None: then it is no event."""
        return self.option(message.GetOptions(), f"{OPTIONS}.event")

    def event_name(self, message: Descriptor) -> str:
        """The type name of an event: `TurnEvent.v1`."""
        return f"{message.name}.{message.file.package.rsplit('.', 1)[-1]}"

    def events(self) -> Iterator[tuple[str, Descriptor, Any]]:
        """Every event as (type name, descriptor, options)."""
        for message in self.messages():
            options = self.event_options(message)
            if options is not None:
                yield self.event_name(message), message, options

    def topics(self) -> dict[int, str]:
        """Topic numbers and their wire names."""
        out: dict[int, str] = {}
        for value in self.pool.FindEnumTypeByName(f"{OPTIONS}.Topic").values:
            name = self.option(value.GetOptions(), f"{OPTIONS}.topic")
            if name:
                out[value.number] = name
        return out

    def method_options(self, path: str, method: MethodDescriptorProto) -> Any:
        """`kfm.options.v1.MethodOptions` of an RPC; SchemaError if it is missing or incomplete."""
        options = self.option(method.options, f"{OPTIONS}.method")
        if options is None:
            raise SchemaError(f"{path} has no (kfm.options.v1.method) option: add scope, rate_class and mcp")
        if not options.scope:
            raise SchemaError(f"{path}: set scope, e.g. `turns.read`")
        if not options.rate_class:
            raise SchemaError(f"{path}: set rate_class")
        if options.HasField("mcp") == bool(options.not_in_mcp):
            raise SchemaError(f"{path}: set exactly one of mcp and not_in_mcp")
        return options

    def http(self, method: MethodDescriptorProto) -> tuple[str, str] | None:
        """The REST route of an RPC as (verb, path), if it has one."""
        rule = self.option(method.options, "google.api.http")
        if rule is None:
            return None
        verb = next(v for v in VERBS if getattr(rule, v))
        return verb.upper(), getattr(rule, verb)

    def error_rows(self) -> Iterator[tuple[str, int, Any]]:
        """Every reason that may be sent, as (name, number, ErrorOptions)."""
        for value in self.pool.FindEnumTypeByName("kfm.error.v1.Reason").values:
            if value.number == 0:
                continue
            options = self.option(value.GetOptions(), f"{OPTIONS}.error")
            if options is None or not options.summary:
                raise SchemaError(f"{value.name} has no (kfm.options.v1.error) option with a summary")
            yield value.name, value.number, options

    def rules(self, field: FieldDescriptor) -> Any:
        """`buf.validate.FieldRules` of a field, or None."""
        return self.option(field.GetOptions(), "buf.validate.field")

    def comment(self, full_name: str) -> str:
        """The leading comment of a symbol in one line, or an empty text."""
        return self.comments.get(full_name, "")


def module_of(file: str) -> str:
    """The Python module of a proto file: `kfm.turn.v1.turn_pb2`."""
    return str(PurePosixPath(file).with_suffix("")).replace("/", ".") + "_pb2"


def idempotency(method: MethodDescriptorProto) -> str:
    """`NO_SIDE_EFFECTS`, `IDEMPOTENT` or `IDEMPOTENCY_UNKNOWN`."""
    return MethodOptions.IdempotencyLevel.Name(method.options.idempotency_level)


def camel(reason: str) -> str:
    """`REASON_TURN_NOT_FOUND` as a class name: `TurnNotFound`."""
    return "".join(w.capitalize() for w in reason.removeprefix("REASON_").split("_"))


def split_example(comment: str) -> tuple[str, str]:
    """A comment without its trailing example, and the example's JSON (empty if there is none)."""
    text, _, example = comment.partition(" Example: `")
    return text.strip(), example.rpartition("`")[0]


def _walk(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in messages:
        if message.GetOptions().map_entry:
            continue
        yield message
        yield from _walk(message.nested_types)


def _comments(file: FileDescriptorProto) -> dict[str, str]:
    by_path = {
        tuple(loc.path): " ".join(loc.leading_comments.split())
        for loc in file.source_code_info.location
        if loc.leading_comments
    }
    out: dict[str, str] = {}

    def put(path: tuple[int, ...], name: str) -> None:
        if path in by_path:
            out[name] = by_path[path]

    def enum(path: tuple[int, ...], prefix: str, node: EnumDescriptorProto) -> None:
        put(path, f"{prefix}.{node.name}")
        for i, value in enumerate(node.value):
            put((*path, 2, i), f"{prefix}.{node.name}.{value.name}")

    def message(path: tuple[int, ...], prefix: str, node: DescriptorProto) -> None:
        name = f"{prefix}.{node.name}"
        put(path, name)
        for i, field in enumerate(node.field):
            put((*path, 2, i), f"{name}.{field.name}")
        for i, oneof in enumerate(node.oneof_decl):
            put((*path, 8, i), f"{name}.{oneof.name}")
        for i, nested in enumerate(node.nested_type):
            message((*path, 3, i), name, nested)
        for i, inner in enumerate(node.enum_type):
            enum((*path, 4, i), name, inner)

    put((2,), file.package)
    for i, node in enumerate(file.message_type):
        message((4, i), file.package, node)
    for i, node in enumerate(file.enum_type):
        enum((5, i), file.package, node)
    for i, service in enumerate(file.service):
        put((6, i), f"{file.package}.{service.name}")
        for j, method in enumerate(service.method):
            put((6, i, 2, j), f"{file.package}.{service.name}.{method.name}")
    return out
