"""Hostile input over the real channel, for every RPC: typed errors only, and the server stays up (ST1, ST2)."""

import random
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from kfm.catalogue.errors import ERRORS
from kfm.catalogue.methods import METHODS, Method

pytestmark = [pytest.mark.requirement("R2", "E1"), pytest.mark.timeout(240)]

SEED = 20_261_121
CASES = 120
TYPED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
}
LEAKS = ("Traceback", "Error(", "Exception", 'File "', "google.protobuf", "asyncpg", "DecodeError")
HOSTILE_TEXT = (
    "",
    "\0",
    "x\0y",
    "'; drop table turns; --",
    "\u202e\ufffd😀",
    "../../etc/passwd",
    "%s%n",
    "x" * 300_000,
)
HOSTILE_INT = (0, -1, 1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**64 - 1)


class LiveServer(Protocol):
    """A whole server; `grpc` is its host:port."""

    grpc: str


def example(method: Method, turn_id: str = "turn_01J0000000000000000000000") -> Message:
    """A valid request: the one in the method's comment; without a turn's id, one that names nothing."""
    text = method.example.replace("turn_01J...", turn_id).replace("01J...", "01J0000000000000000000000")
    return json_format.Parse(text, method.request())


async def outcome(channel: grpc.aio.Channel, method: Method, raw: bytes) -> grpc.aio.AioRpcError | None:
    """Send bytes; the failure, or None if the server took them. Only the first message of a stream is read."""
    try:
        if not method.server_streaming:
            await channel.unary_unary(method.path)(raw, timeout=20)
            return None
        if method.client_streaming:
            call = channel.stream_stream(method.path)(iter((raw,)), timeout=20)
        else:
            call = channel.unary_stream(method.path)(raw, timeout=20)
        await call.read()
        call.cancel()
    except grpc.aio.AioRpcError as error:
        return error
    return None


def check(error: grpc.aio.AioRpcError | None, what: str) -> None:
    """A failure is typed, names the field it is about, and tells nothing about the inside."""
    if error is None:
        return
    assert error.code() in TYPED, f"{what}: {error.code()} {error.details()}"
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if raw is None:
        # Above twice the limit the transport itself refuses, before anything is decoded.
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, f"{what}: {error.details()}"
        return
    assert isinstance(raw, bytes)
    text = raw.decode("utf-8", "replace") + (error.details() or "")
    assert not [leak for leak in LEAKS if leak in text], f"{what}: {text}"
    details = status_pb2.Status.FromString(raw).details
    info = error_details_pb2.ErrorInfo.FromString(details[0].value)
    assert info.domain == "kfm"
    assert info.reason in ERRORS
    if info.reason == "REASON_INVALID_ARGUMENT":
        bad = error_details_pb2.BadRequest.FromString(details[1].value)
        assert bad.field_violations, what
        assert all(v.field and v.reason for v in bad.field_violations), what


def mutations(valid: bytes, rng: random.Random) -> Iterator[bytes]:
    """Bytes near a valid message, and bytes near nothing."""
    for _ in range(CASES):
        raw = bytearray(valid)
        match rng.randrange(6):
            case 0:
                raw = bytearray(rng.randbytes(rng.randrange(1, 200)))
            case 1:
                del raw[rng.randrange(len(raw) + 1) :]
            case 2:
                for _ in range(rng.randrange(1, 4)):
                    if raw:
                        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            case 3:
                at = rng.randrange(len(raw) + 1)
                raw[at:at] = rng.randbytes(rng.randrange(1, 16))
            case 4:
                raw += raw * rng.randrange(1, 4)
            case _:
                raw += bytes([rng.randrange(8, 128)]) + rng.randbytes(rng.randrange(1, 12))
        yield bytes(raw)


def extremes(message: Message, depth: int = 0) -> Iterator[tuple[str, Message]]:
    """The message with one field, at any depth, set to a value at or beyond its edge."""
    for field in message.DESCRIPTOR.fields:
        for value in values_for(field):
            changed = type(message)()
            changed.CopyFrom(message)
            try:
                set_field(changed, field, value)
            except (ValueError, TypeError, OverflowError):
                continue
            yield f"{field.name}={value!r:.40}", changed
        map_entry = field.message_type is not None and field.message_type.GetOptions().map_entry
        if field.message_type is not None and not map_entry and depth < 4:
            inner: Message = message_class(message, field)()
            for name, changed_inner in extremes(inner, depth + 1):
                changed = type(message)()
                changed.CopyFrom(message)
                target = getattr(changed, field.name)
                (target.add() if field.is_repeated else target).CopyFrom(changed_inner)
                yield f"{field.name}.{name}", changed


def message_class(message: Message, field: FieldDescriptor) -> type[Message]:
    """The class of a message field."""
    held = getattr(type(message)(), field.name)
    return type(held.add()) if field.is_repeated else type(held)


def values_for(field: FieldDescriptor) -> tuple[Any, ...]:
    """Values at or beyond the edges of a field's type."""
    if field.message_type is not None:
        return ()
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return HOSTILE_TEXT if field.type == FieldDescriptor.TYPE_STRING else (b"", b"\xff" * 300_000)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return (0, -1, 99, 2**31 - 1)
    return HOSTILE_INT


def set_field(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set a scalar field, or many of a repeated one."""
    if field.is_repeated:
        getattr(message, field.name).extend([value] * (3 if isinstance(value, str) else 100_000))
    else:
        setattr(message, field.name, value)


@pytest.fixture
async def channel(live_server: LiveServer) -> Any:
    """A channel to the real server, which still answers when the test is over."""
    async with grpc.aio.insecure_channel(
        live_server.grpc, options=[("grpc.max_send_message_length", -1)]
    ) as opened:
        yield opened
        assert await opened.unary_unary("/kfm.admin.v1.AdminService/GetServerInfo")(b"", timeout=10)


@pytest.fixture
async def turn_id(channel: grpc.aio.Channel) -> str:
    """A turn that exists."""
    method = METHODS["/kfm.turn.v1.TurnService/SubmitTurn"]
    request = method.request(idempotency_key=uuid.uuid4().hex)
    request.turn.input.add().text = "what is 2 + 2?"  # type: ignore[attr-defined]
    raw = await channel.unary_unary(method.path)(request.SerializeToString(), timeout=20)
    return method.response.FromString(raw).turn_id  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", METHODS)
async def test_mutated_bytes_get_typed_errors_only(channel: grpc.aio.Channel, path: str) -> None:
    method = METHODS[path]
    rng = random.Random(f"{SEED}{path}")
    valid = example(method).SerializeToString(deterministic=True)
    for raw in mutations(valid, rng):
        check(await outcome(channel, method, raw), f"{path} {raw.hex()}")


@pytest.mark.parametrize("path", METHODS)
async def test_values_at_the_edges_get_typed_errors_that_name_the_field(
    channel: grpc.aio.Channel, path: str, turn_id: str
) -> None:
    method = METHODS[path]
    done = set[bytes]()
    for name, message in [*extremes(example(method)), *extremes(example(method, turn_id))]:
        raw = message.SerializeToString(deterministic=True)
        if raw not in done:  # a request that names no turn is the same with and without one
            done.add(raw)
            check(await outcome(channel, method, raw), f"{path} {name}")


@pytest.mark.parametrize("path", METHODS)
async def test_large_deep_and_many_are_refused_before_they_hurt(channel: grpc.aio.Channel, path: str) -> None:
    method = METHODS[path]
    for what, raw in {
        "oversize unknown field": b"\xf2\x3f" + varint(5_000_000) + b"x" * 5_000_000,
        "far oversize": b"\xf2\x3f" + varint(20_000_000) + b"x" * 20_000_000,
        "deep groups": b"\x0b" * 5_000,
        "deep messages": nested(2_000),
        "endless varint": b"\x08" + b"\xff" * 64,
        "length beyond the end": b"\x0a\xff\xff\xff\xff\x07",
        "field number zero": b"\x02\x00",
        "a million empty parts": b"\x0a" + varint(2_000_000) + b"\x1a\x00" * 1_000_000,
        "wrong wire types": b"\x09" + b"\x00" * 8 + b"\x15" + b"\x00" * 4 + b"\x18\x01",
    }.items():
        check(await outcome(channel, method, raw), f"{path} {what}")


async def test_json_that_is_none_names_its_field(channel: grpc.aio.Channel) -> None:
    method = METHODS["/kfm.turn.v1.TurnService/SubmitTurn"]
    for text in ("NaN", "[1,", "[" * 5_000 + "]" * 5_000, '"\\ud800"', "1e999", "", "Infinity", "{'a': 1}"):
        request = method.request(idempotency_key="json")
        request.turn.input.add().data_json = text  # type: ignore[attr-defined]
        error = await outcome(channel, method, request.SerializeToString())
        assert error is not None, text
        check(error, text)
        assert "turn.input[0].data_json" in (error.details() or "")


async def test_headers_over_the_limit_are_refused(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary("/kfm.admin.v1.AdminService/GetServerInfo")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"", metadata=(("x-big", "v" * 60_000),), timeout=10)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_headers_that_mean_nothing_change_nothing(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary("/kfm.admin.v1.AdminService/GetServerInfo")
    metadata = (
        ("traceparent", "00-zz-not-a-trace"),
        ("x-request-id", "x" * 4_000),
        ("authorization", 'Bearer "quoted"'),
        ("weird-bin", b"\x00\xff\xfe"),
    )
    assert await call(b"", metadata=metadata, timeout=10)


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def nested(depth: int) -> bytes:
    """Field 1 within field 1, many times."""
    raw = b""
    for _ in range(depth):
        raw = b"\x0a" + varint(len(raw)) + raw
    return raw
