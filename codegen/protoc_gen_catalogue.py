"""protoc plugin for the catalogues: events, methods and errors as typed Python tables."""

from codegen.errors import errors_module
from codegen.plugin import Files, release, run
from codegen.schema import Schema, SchemaError, idempotency, module_of, split_example

_EVENTS = '''"""The event catalogue: type, class, topic and version of every event. Generated; never edited."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError, Message

{imports}
from kfm.catalogue.errors import EventTypeUnknown, EventUndecodable

SCHEMA_RELEASE = "{release}"
URL_PREFIX = "type.googleapis.com/"


@dataclass(frozen=True, slots=True)
class EventType:
    """One event type. `name` is the envelope's type, `url` the payload's, `topic` the wire name of its topic."""

    name: str
    full_name: str
    url: str
    topic: str
    spec_version: str
    may_ignore: bool
    cls: type[Message]


TOPICS: tuple[str, ...] = (
{topics}
)

EVENT_TYPES: dict[str, EventType] = {{
{rows}
}}
BY_CLASS: dict[type[Message], EventType] = {{e.cls: e for e in EVENT_TYPES.values()}}
BY_URL: dict[str, EventType] = {{e.url: e for e in EVENT_TYPES.values()}}


def pack(message: Message) -> tuple[EventType, bytes]:
    """The type and the canonical bytes of an event; KeyError if the message is none."""
    return BY_CLASS[type(message)], message.SerializeToString(deterministic=True)


def fill(envelope: envelope_pb2.Envelope, message: Message) -> EventType:
    """Put an event into an envelope: type, version, may_ignore and payload. The rest is the caller's."""
    kind, value = pack(message)
    envelope.type = kind.name
    envelope.spec_version = kind.spec_version
    envelope.may_ignore = kind.may_ignore
    envelope.payload.type_url = kind.url
    envelope.payload.value = value
    return kind


def unpack(envelope: envelope_pb2.Envelope) -> Message | None:
    """The event in an envelope; None if its type is unknown and the envelope says that it may be ignored.

    Raises EventTypeUnknown for another unknown type, EventUndecodable if type and payload disagree or
    the bytes are damaged.
    """
    kind = EVENT_TYPES.get(envelope.type)
    if kind is None:
        if envelope.may_ignore:
            return None
        raise EventTypeUnknown(metadata={{"type": envelope.type, "event_id": envelope.event_id}})
    if envelope.payload.type_url != kind.url:
        raise EventUndecodable(
            "The envelope's type and its payload's URL disagree.",
            metadata={{"type": kind.name, "url": envelope.payload.type_url, "event_id": envelope.event_id}},
        )
    try:
        return kind.cls.FromString(envelope.payload.value)
    except DecodeError:
        raise EventUndecodable(metadata={{"type": kind.name, "event_id": envelope.event_id}}) from None
'''

_METHODS = '''"""The method catalogue: what every RPC needs, costs and is called elsewhere. Generated; never edited."""

from dataclasses import dataclass

from google.protobuf.message import Message

{imports}


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC. `idempotent` is also true for those without side effects; `http` is (verb, path), `mcp` (name, title, group)."""

    path: str
    service: str
    name: str
    request: type[Message]
    response: type[Message]
    server_streaming: bool
    client_streaming: bool
    scope: str
    rate_class: str
    long_running: bool
    idempotent: bool
    read_only: bool
    http: tuple[str, str] | None
    mcp: tuple[str, str, str] | None
    not_in_mcp: str
    description: str
    example: str


METHODS: dict[str, Method] = {{
{rows}
}}
'''


def generate(schema: Schema) -> Files:
    """The three modules of `kfm.catalogue`."""
    return {
        "kfm/catalogue/events.py": _events(schema),
        "kfm/catalogue/methods.py": _methods(schema),
        "kfm/catalogue/errors.py": errors_module(
            schema, doc="The error table and the exception tree.", base="KfmError"
        ),
    }


def _events(schema: Schema) -> str:
    topics = schema.topics()
    rows: list[str] = []
    files = {"kfm/event/v1/envelope.proto"}
    for name, message, options in schema.events():
        if options.topic not in topics:
            raise SchemaError(f"{message.full_name}: set the topic of its (kfm.options.v1.event) option")
        if not options.spec_version:
            raise SchemaError(
                f"{message.full_name}: set the spec_version of its (kfm.options.v1.event) option"
            )
        files.add(message.file.name)
        rows.append(
            f'    "{name}": EventType("{name}", "{message.full_name}", URL_PREFIX + "{message.full_name}", '
            f'"{topics[options.topic]}", "{options.spec_version}", {options.may_ignore}, '
            f"{_module(message.file.name)}.{message.name}),"
        )
    return _EVENTS.format(
        imports=_imports(files),
        release=release(),
        topics="\n".join(f'    "{t}",' for t in topics.values()),
        rows="\n".join(rows),
    )


def _methods(schema: Schema) -> str:
    rows: list[str] = []
    files: set[str] = set()
    for package, service, method in schema.methods():
        full = f"{package}.{service.name}"
        path = f"/{full}/{method.name}"
        options = schema.method_options(path, method)
        classes: list[str] = []
        for type_name in (method.input_type, method.output_type):
            message = schema.pool.FindMessageTypeByName(type_name.lstrip("."))
            files.add(message.file.name)
            classes.append(f"{_module(message.file.name)}.{message.name}")
        rate = (
            options.DESCRIPTOR.fields_by_name["rate_class"]
            .enum_type.values_by_number[options.rate_class]
            .name
        )
        level = idempotency(method)
        mcp = (options.mcp.name, options.mcp.title, options.mcp.group) if options.HasField("mcp") else None
        description, example = split_example(schema.comment(f"{full}.{method.name}"))
        rows.append(
            f'    "{path}": Method(\n        path="{path}",\n        service="{full}",\n'
            f'        name="{method.name}",\n        request={classes[0]},\n        response={classes[1]},\n'
            f"        server_streaming={method.server_streaming},\n"
            f"        client_streaming={method.client_streaming},\n"
            f'        scope="{options.scope}",\n        rate_class="{rate}",\n'
            f"        long_running={options.long_running},\n"
            f"        idempotent={level in ('IDEMPOTENT', 'NO_SIDE_EFFECTS')},\n"
            f"        read_only={level == 'NO_SIDE_EFFECTS'},\n"
            f"        http={schema.http(method)!r},\n        mcp={mcp!r},\n"
            f"        not_in_mcp={options.not_in_mcp!r},\n        description={description!r},\n"
            f"        example={example!r},\n    ),"
        )
    return _METHODS.format(imports=_imports(files), rows="\n".join(rows))


def _module(file: str) -> str:
    return module_of(file).rpartition(".")[2]


def _imports(files: set[str]) -> str:
    lines: list[str] = []
    for file in sorted(files):
        package, _, name = module_of(file).rpartition(".")
        lines.append(f"from {package} import {name}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(generate)
