"""The raw commands: what is encoded is what the protocol says, and every answer is read or refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm_server.bus.iggy import wire

from tests.support.iggy_frames import Body

pytestmark = pytest.mark.requirement("B1")
names = st.text(min_size=1, max_size=60).filter(lambda text: 0 < len(text.encode()) <= 255)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@given(names, names, names, u32, u64)
def test_an_offset_that_is_stored_names_its_group_stream_topic_and_partition(
    group: str, stream: str, topic: str, partition: int, offset: int
) -> None:
    body = Body(wire.store_offset(group, stream, topic, partition, offset))
    assert body.number("B") == 2
    assert [body.identifier() for _ in range(3)] == [group, stream, topic]
    assert (body.number("B"), body.number("I"), body.number("Q"), body.number("B")) == (
        1,
        partition,
        offset,
        1,
    )
    assert body.at == len(body.data)


@given(names, names, names)
def test_an_assignment_is_asked_by_stream_topic_and_group(stream: str, topic: str, group: str) -> None:
    body = Body(wire.sync_group(stream, topic, group))
    assert [body.identifier() for _ in range(3)] == [stream, topic, group]
    assert body.at == len(body.data)


@given(names, names, u32, st.dictionaries(names, names, max_size=5))
def test_a_topic_is_made_with_its_options_as_texts(
    stream: str, name: str, partitions: int, options: dict[str, str]
) -> None:
    body = Body(wire.create_topic(stream, name, partitions, options))
    assert (body.identifier(), body.number("I"), body.name(), body.options()) == (
        stream,
        partitions,
        name,
        options,
    )


@given(u64, st.lists(u32, max_size=40))
def test_an_assignment_is_read_whole(generation: int, partitions: list[int]) -> None:
    reply = struct.pack(f"<QI{len(partitions)}I", generation, len(partitions), *partitions)
    assert wire.assignment(reply) == wire.Assignment(generation, tuple(partitions))


@given(u32, u64, u64)
def test_a_stored_offset_is_read_with_the_head_beside_it(partition: int, current: int, stored: int) -> None:
    assert wire.stored(struct.pack("<IQQ", partition, current, stored)) == wire.Stored(current, stored)


def test_an_empty_answer_says_that_there_is_none() -> None:
    assert wire.assignment(b"") is None
    assert wire.stored(b"") is None
    assert wire.clients(b"") == wire.groups_of(b"") == []


@given(st.lists(st.tuples(u32, st.binary(max_size=30), u32), max_size=5))
def test_connected_clients_are_read_whatever_their_addresses(found: list[tuple[int, bytes, int]]) -> None:
    reply = b"".join(
        struct.pack("<IIBI", number, 1, 1, len(address)) + address + struct.pack("<I", groups)
        for number, address, groups in found
    )
    assert wire.clients(reply) == [(number, groups) for number, _, groups in found]


@given(st.lists(st.tuples(u32, u32, u32), max_size=5))
def test_a_clients_groups_are_read(groups: list[tuple[int, int, int]]) -> None:
    head = struct.pack("<IIBI", 7, 1, 1, 3) + b"::1" + struct.pack("<I", len(groups))
    assert wire.groups_of(head + b"".join(struct.pack("<III", *g) for g in groups)) == groups


@given(st.binary(min_size=1, max_size=80))
def test_an_answer_of_another_form_is_refused_and_never_misread_in_silence(reply: bytes) -> None:
    for read in (wire.assignment, wire.stored, wire.clients, wire.groups_of):
        try:
            read(reply)
        except wire.Malformed:
            continue


@pytest.mark.parametrize("name", ["", "n" * 256])
def test_a_name_that_the_protocol_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        wire.identifier(name)
