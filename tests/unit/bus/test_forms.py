"""The JSON and CloudEvents forms of the envelope lose nothing."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm.catalogue import events
from kfm.catalogue.errors import EventUndecodable
from kfm.event.v1 import envelope_pb2, turn_events_pb2
from kfm_server.bus import forms

pytestmark = pytest.mark.requirement("S3")

Forth = Callable[[envelope_pb2.Envelope], dict[str, Any]]
Back = Callable[[dict[str, Any]], envelope_pb2.Envelope]
FORMS = pytest.mark.parametrize(
    ("forth", "back"),
    [(forms.to_json, forms.from_json), (forms.to_cloudevent, forms.from_cloudevent)],
    ids=["json", "cloudevents"],
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def payloads(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """Known events, known events with unknown fields, unknown types, and damaged bytes."""
    kind = draw(st.sampled_from(["known", "newer", "unknown", "damaged"]))
    if kind == "unknown":
        return "DreamEvent.v3", "type.googleapis.com/kfm.event.v3.DreamEvent", draw(st.binary(max_size=40))
    event = turn_events_pb2.TurnEvent(principal=draw(TEXT), on_busy=draw(st.integers(0, 9)))
    event.labels.update(draw(st.dictionaries(TEXT, TEXT, max_size=3)))
    if draw(st.booleans()):
        event.timeout.FromMicroseconds(draw(st.integers(-(10**15), 10**15)))
    value = event.SerializeToString(deterministic=True)
    if kind == "newer":
        value += b"\xda\x3e\x03new"
    if kind == "damaged":
        value += b"\x0a\x7f"
    return "TurnEvent.v1", "type.googleapis.com/kfm.event.v1.TurnEvent", value


@st.composite
def envelopes(draw: st.DrawFn) -> envelope_pb2.Envelope:
    envelope = envelope_pb2.Envelope(
        event_id=draw(TEXT),
        spec_version=draw(TEXT),
        trace_id=draw(TEXT),
        traceparent=draw(TEXT),
        tenant_id=draw(TEXT),
        session_id=draw(TEXT),
        turn_id=draw(TEXT),
        sequence=draw(st.integers(0, 2**64 - 1)),
        causation_id=draw(TEXT),
        attempt=draw(st.integers(0, 2**32 - 1)),
        may_ignore=draw(st.booleans()),
    )
    if draw(st.booleans()):
        envelope.timestamp.FromMicroseconds(draw(st.integers(0, 4 * 10**15)))
    if draw(st.booleans()):
        envelope.type, envelope.payload.type_url, envelope.payload.value = draw(payloads())
    return envelope


@FORMS
@given(envelope=envelopes())
def test_an_envelope_comes_back_byte_for_byte(
    forth: Forth, back: Back, envelope: envelope_pb2.Envelope
) -> None:
    there = json.loads(json.dumps(forth(envelope)))
    again = back(there)
    assert again.SerializeToString(deterministic=True) == envelope.SerializeToString(deterministic=True)


def test_a_known_payload_is_readable_and_an_unknown_one_is_its_bytes() -> None:
    envelope = envelope_pb2.Envelope()
    events.fill(envelope, turn_events_pb2.TurnEvent(principal="ann"))
    url = "type.googleapis.com/kfm.event.v1.TurnEvent"
    assert forms.to_json(envelope)["payload"] == {"@type": url, "principal": "ann"}
    assert forms.to_cloudevent(envelope)["data"] == {"principal": "ann"}
    envelope.payload.type_url = "type.googleapis.com/kfm.event.v9.Dream"
    assert set(forms.to_json(envelope)["payload"]) == {"@type", "@value"}
    assert "data_base64" in forms.to_cloudevent(envelope)


@FORMS
@given(
    value=st.dictionaries(
        TEXT, st.one_of(st.none(), TEXT, st.integers(), st.dictionaries(TEXT, TEXT, max_size=2))
    )
)
def test_what_is_no_envelope_is_refused_or_read_and_never_breaks(
    forth: Forth, back: Back, value: dict[str, Any]
) -> None:
    try:
        back(value)
    except EventUndecodable as error:
        assert error.message


@pytest.mark.parametrize(
    "value",
    [
        {"payload": {"@type": "type.googleapis.com/kfm.event.v9.Dream", "a": 1}},
        {"payload": {"@type": "type.googleapis.com/kfm.event.v1.TurnEvent", "@value": "!"}},
        {"payload": {"principal": "nobody"}},
        {"payload": [1]},
        {"sequence": "many"},
        {"sequense": 1},
    ],
)
def test_wrong_json_is_refused_with_a_reason(value: dict[str, Any]) -> None:
    with pytest.raises(EventUndecodable):
        forms.from_json(value)
