"""The SDK's values as plain JSON: the form that the command line prints."""

import base64
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from xenocomm._gen.types import Payload


def to_json(value: Any) -> Any:
    """Dictionaries, lists, text and numbers. Enums by name, times as RFC 3339 in UTC, durations as `1.5s`, bytes in base64.

    Fields that are not set are left out. An event's payload is its fields beside `@type`, as in ProtoJSON.
    """
    if isinstance(value, Payload):
        known: dict[str, Any] = (
            to_json(value.message) if value.message is not None else {"@value": to_json(value.value)}
        )
        return {"@type": value.type_url, **known}
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
        return {name: to_json(held) for name, held in pairs if held is not None}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value
