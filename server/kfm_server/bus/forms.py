"""Other forms of the envelope: its JSON, and CloudEvents 1.0 (structured JSON). Both are lossless.

The JSON form shows a payload as `{"@type": url, ...}`; of a type that this release does not know as
`{"@type": url, "@value": base64}`, in both directions. So is a payload whose JSON would lose something:
fields or enum numbers that only a newer release knows.
"""

import base64
import binascii
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from kfm.catalogue.errors import EventUndecodable
from kfm.catalogue.events import BY_URL
from kfm.event.v1.envelope_pb2 import Envelope

Json = dict[str, Any]

SOURCE = "kfm/"
TYPE_PREFIX = "kfm."
DATA_TYPE = "application/json"
RAW_TYPE = "application/protobuf"
_EXTENSIONS = {
    "kfmspecversion": "specVersion",
    "traceid": "traceId",
    "turnid": "turnId",
    "sequence": "sequence",
    "causationid": "causationId",
    "attempt": "attempt",
    "mayignore": "mayIgnore",
}


def to_json(envelope: Envelope) -> Json:
    """The JSON form: field names in camelCase, 64-bit numbers as text, the payload with its `@type`."""
    head = Envelope()
    head.CopyFrom(envelope)
    head.ClearField("payload")
    out: Json = json_format.MessageToDict(head)
    if envelope.HasField("payload"):
        out["payload"] = _payload_json(envelope.payload.type_url, envelope.payload.value)
    return out


def from_json(value: Json) -> Envelope:
    """The envelope of a JSON form; raises EventUndecodable if it is none."""
    head = {k: v for k, v in value.items() if k != "payload"}
    try:
        envelope = json_format.ParseDict(head, Envelope())
        payload: Any = value.get("payload")
        if payload is not None:
            envelope.payload.type_url, envelope.payload.value = _payload_of(payload)
    except (json_format.ParseError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise EventUndecodable(f"The JSON is no envelope: {error}") from None
    return envelope


def to_cloudevent(envelope: Envelope) -> Json:
    """A CloudEvents 1.0 JSON event. `source` is `kfm/<tenant>`, `subject` the session, `dataschema` the URL.

    Known payloads stand in `data` as JSON; others in `data_base64`, byte for byte.
    """
    fields = to_json(envelope)
    out: Json = {
        "specversion": "1.0",
        "id": envelope.event_id,
        "source": SOURCE + envelope.tenant_id,
        "type": TYPE_PREFIX + envelope.type,
    }
    if envelope.session_id:
        out["subject"] = envelope.session_id
    if envelope.HasField("timestamp"):
        out["time"] = fields["timestamp"]
    if envelope.traceparent:
        out["traceparent"] = envelope.traceparent
    for name, field in _EXTENSIONS.items():
        if field in fields:
            out[name] = fields[field]
    if envelope.HasField("payload"):
        out["dataschema"] = envelope.payload.type_url
        payload = dict(fields["payload"])
        payload.pop("@type")
        if set(payload) == {"@value"}:
            out["datacontenttype"] = RAW_TYPE
            out["data_base64"] = payload["@value"]
        else:
            out["datacontenttype"] = DATA_TYPE
            out["data"] = payload
    return out


def from_cloudevent(event: Json) -> Envelope:
    """The envelope of a CloudEvents 1.0 JSON event that `to_cloudevent` made; EventUndecodable for others."""
    try:
        source, kind = event["source"], event["type"]
        if event["specversion"] != "1.0" or not source.startswith(SOURCE) or not kind.startswith(TYPE_PREFIX):
            raise EventUndecodable("The CloudEvent was not made from an envelope.")
        value: Json = {
            "eventId": event["id"],
            "tenantId": source.removeprefix(SOURCE),
            "type": kind.removeprefix(TYPE_PREFIX),
        }
        for name, field in {
            **_EXTENSIONS,
            "subject": "sessionId",
            "time": "timestamp",
            "traceparent": "traceparent",
        }.items():
            if name in event:
                value[field] = event[name]
        if "dataschema" in event:
            data = {"@value": event["data_base64"]} if "data_base64" in event else event["data"]
            value["payload"] = {**data, "@type": event["dataschema"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise EventUndecodable(f"The CloudEvent lacks something: {error}") from None
    return from_json(value)


def _payload_json(url: str, value: bytes) -> Json:
    opaque: Json = {"@type": url, "@value": base64.b64encode(value).decode("ascii")}
    kind = BY_URL.get(url)
    if kind is None:
        return opaque
    try:
        shown: Json = json_format.MessageToDict(kind.cls.FromString(value))
        again = json_format.ParseDict(shown, kind.cls())
    except (DecodeError, json_format.Error, ValueError, TypeError):
        return opaque
    return {"@type": url, **shown} if _bytes(again) == value else opaque


def _payload_of(payload: Json) -> tuple[str, bytes]:
    fields = dict(payload)
    url: str = fields.pop("@type")
    if set(fields) == {"@value"}:
        try:
            return url, base64.b64decode(fields["@value"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"@value is not base64: {error}") from None
    kind = BY_URL.get(url)
    if kind is None:
        raise ValueError(f"{url} is not in the catalogue: send its bytes as @value")
    return url, _bytes(json_format.ParseDict(fields, kind.cls()))


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
