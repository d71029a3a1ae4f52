"""Readers and messages of different releases, and the stacks that read them."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from kfm.catalogue import events
from kfm.catalogue.errors import ERRORS, EventTypeUnknown, EventUndecodable
from kfm.event.v1 import envelope_pb2
from xenocomm._gen import types as sdk
from xenocomm._gen.pool import pb

from codegen.contract.readers import meet
from codegen.contract.tree import Tree, encode
from codegen.samples import envelope

TREE = Tree()
NEWEST = TREE.snapshots[-1]
GOLDENS = [(name, full, content) for name, full, content, _ in NEWEST.goldens() if full in sdk.CLASSES]


@pytest.mark.requirement("S4")
def test_an_old_reader_skips_a_new_event_that_may_be_ignored_and_refuses_one_that_may_not() -> None:
    old = TREE.snapshots[0].schema
    new = encode(envelope(NEWEST.schema, "LifecycleEvent.v1"))
    met: Any = old.message_class("kfm.event.v1.Envelope").FromString(new)
    assert meet(old, met) == "ignored"
    met.may_ignore = False
    assert meet(old, met) == "refused"
    assert meet(NEWEST.schema, met) == "read"


@pytest.mark.requirement("S3")
def test_the_catalogue_ignores_refuses_and_calls_poison_what_the_envelope_says() -> None:
    unknown = envelope_pb2.Envelope(type="DreamEvent.v1", may_ignore=True)
    assert events.unpack(unknown) is None
    unknown.may_ignore = False
    with pytest.raises(EventTypeUnknown):
        events.unpack(unknown)
    poison = envelope_pb2.Envelope.FromString(encode(envelope(NEWEST.schema, "PlanEvent.v1")))
    poison.type = "TurnEvent.v1"
    with pytest.raises(EventUndecodable):
        events.unpack(poison)


@pytest.mark.requirement("S4")
@pytest.mark.parametrize(("name", "full_name", "content"), GOLDENS, ids=[g[0] for g in GOLDENS])
def test_the_sdk_upb_and_json_agree(name: str, full_name: str, content: bytes) -> None:
    message = pb(full_name).FromString(content)
    shown = sdk.CLASSES[full_name].from_pb(message)
    assert encode(shown.to_pb()) == content, "the SDK's types hold all that is on the wire"
    own = NEWEST.schema.message_class(full_name)
    as_json = json_format.MessageToDict(own.FromString(content), descriptor_pool=NEWEST.schema.pool)
    read = json_format.Parse(json.dumps(as_json), pb(full_name)(), descriptor_pool=_sdk_pool())
    if "payload" not in json.dumps(as_json):
        assert encode(read) == content


@pytest.mark.requirement("S4")
def test_the_sdk_keeps_numbers_of_enums_that_it_does_not_know() -> None:
    message = pb("kfm.event.v1.TurnStateEvent")(change=77, outcome=1)
    shown = sdk.TurnStateEvent.from_pb(message)
    assert shown.change == 77
    assert not isinstance(shown.change, sdk.TurnChange)
    assert shown.outcome is sdk.Outcome.SUCCEEDED
    assert encode(shown.to_pb()) == encode(message)


@pytest.mark.requirement("S4")
@pytest.mark.parametrize(
    "damaged",
    [b"\x0a\x05ab", b"\x00\x01", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x02\xff\xfe"],
    ids=["cut short", "field number 0", "endless length", "text that is not UTF-8"],
)
def test_damaged_bytes_are_refused_by_server_and_sdk_alike(damaged: bytes) -> None:
    for kind in (envelope_pb2.Envelope, pb("kfm.event.v1.Envelope")):
        with pytest.raises(DecodeError):
            kind.FromString(damaged)


@pytest.mark.requirement("S1")
def test_the_sdk_and_the_server_have_the_same_error_table() -> None:
    from xenocomm._gen import errors as theirs

    assert {k: _row(v) for k, v in theirs.ERRORS.items()} == {k: _row(v) for k, v in ERRORS.items()}
    assert set(theirs.ERROR_CLASSES) == set(theirs.ERRORS)


def _row(row: Any) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in row.__slots__)


def _sdk_pool() -> Any:
    from xenocomm._gen.pool import POOL

    return POOL
