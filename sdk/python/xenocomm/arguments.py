"""What callers hand in: checked before anything is sent, so that InvalidArgument names the argument."""

import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from typing import Any

from xenocomm._gen.errors import InvalidArgument
from xenocomm._gen.pool import pb
from xenocomm._gen.types import Limits, Part

Input = str | Part | Mapping[str, Any] | Sequence[str | Part | Mapping[str, Any]]
"""A message: text, a part, JSON data such as `{"plan": ...}`, or several of these."""

_LONGEST_S = 315_576_000_000  # what a protobuf Duration holds
_LEAST_DOLLARS = Decimal("1e-9")
_MOST_DOLLARS = 1_000_000_000
_MOST_ENDPOINTS = 64
_ENDPOINT = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]):([0-9]{1,5})")


def refuse(name: str, message: str, rule: str = "client.type") -> InvalidArgument:
    """The error for one argument; `message` goes on after its name."""
    return InvalidArgument(f"{name} {message}", violations=[(name, rule, message)])


def endpoint(value: object) -> str:
    """`host:port`, the host a name or an address (IPv6 in brackets), the port 1 to 65535; or several, with commas between."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [""]
    for part in parts:
        found = _ENDPOINT.fullmatch(part)
        if found is None or not 1 <= int(found[1]) <= 65535:
            said = "" if len(parts) == 1 else f" in {part!r}"
            raise refuse(
                "endpoint",
                f"(or KFM_ENDPOINT) must be host:port with a port from 1 to 65535, not {value!r}{said}",
                "form",
            )
    if len(parts) > _MOST_ENDPOINTS:
        raise refuse("endpoint", f"(or KFM_ENDPOINT) may name at most {_MOST_ENDPOINTS} servers", "range")
    return ",".join(dict.fromkeys(parts))


def token(value: object) -> str:
    """A token that fits into a header: visible ASCII. It is not repeated in the error."""
    if not isinstance(value, str) or not all("!" <= c <= "~" for c in value):
        raise refuse("token", "(or KFM_TOKEN) must be visible ASCII characters without blanks", "form")
    return value


def seconds(name: str, value: object, *, positive: bool = False) -> float:
    """A finite number of seconds, or a timedelta; from 0, or with `positive` more than 0."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise refuse(name, f"must be a number of seconds, not {_shown(value)}")
    if not math.isfinite(number) or number > _LONGEST_S or number < 0 or (positive and number == 0):
        least = "more than 0" if positive else "0 or more"
        raise refuse(name, f"must be {least} seconds and finite, not {value}", "range")
    return float(number)


def member(name: str, kind: type[IntEnum], value: object) -> int:
    """The number of an enum's member, given as the member, its number or its name in any case."""
    if isinstance(value, str) and value.upper() in kind.__members__:
        return int(kind[value.upper()])
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    names = ", ".join(m.lower() for m in kind.__members__ if m != "UNSPECIFIED")
    raise refuse(name, f"must be a {kind.__name__} ({names}), not {_shown(value)}")


def labels(value: object) -> dict[str, str]:
    """Labels by name; both are text."""
    if isinstance(value, Mapping) and all(isinstance(s, str) for pair in value.items() for s in pair):
        return dict(value)
    raise refuse("labels", f"must map text to text, not be {_shown(value)}")


def limits(value: object) -> Any:
    """The protobuf message of Limits, or of a mapping of its fields, `max_cost` (US dollars), `step_timeout` (seconds).

    In a mapping None is the server's default; 0, which the wire takes for it, is refused.
    """
    kind = pb("kfm.type.v1.Limits")
    if isinstance(value, Limits):
        return value.to_pb()
    if isinstance(value, Mapping):
        fields: dict[str, Any] = {name: given for name, given in value.items() if given is not None}
        if "max_cost" in fields:
            fields["max_cost_nanos"] = nanos("limits.max_cost", fields.pop("max_cost"))
        if isinstance(fields.get("step_timeout"), int | float):
            fields["step_timeout"] = timedelta(
                seconds=seconds("limits.step_timeout", fields["step_timeout"], positive=True)
            )
        for name, given in fields.items():
            if isinstance(given, int | float) and given <= 0:
                raise refuse(
                    f"limits.{name}", f"must be more than 0, or None for the default, not {given!r}", "range"
                )
        return build(kind, fields, "limits.")
    raise refuse("limits", f"must be Limits or a mapping of its fields, not {_shown(value)}")


def nanos(name: str, dollars: object) -> int:
    """Dollars as a Decimal, a number or text, in 10^-9 dollars, rounded down. InvalidArgument names `name`."""
    if isinstance(dollars, bool) or not isinstance(dollars, Decimal | int | float | str):
        raise refuse(name, f"must be US dollars, as 0.05, not {_shown(dollars)}")
    try:
        amount = Decimal(str(dollars))
    except InvalidOperation:
        raise refuse(name, f"must be US dollars, as 0.05, not {_shown(dollars)}", "form") from None
    if not amount.is_finite() or not _LEAST_DOLLARS <= amount <= _MOST_DOLLARS:
        said = f"must be US dollars, more than 0 (at least 10^-9) and at most {_MOST_DOLLARS}, not {_shown(dollars)}"
        raise refuse(name, said, "range")
    return int(amount.scaleb(9))


def new_key() -> str:
    """A fresh idempotency key."""
    return uuid.uuid4().hex


def parts(message: object) -> list[Any]:
    """The protobuf parts of a message: text, a Part, a mapping as JSON data, or a sequence of these."""
    if isinstance(message, str | Part | Mapping):
        return [_part("message", message)]
    if isinstance(message, Sequence) and not isinstance(message, bytes | bytearray):
        return [_part(f"message[{index}]", one) for index, one in enumerate(message)]
    raise refuse("message", f"must be text, a Part, a mapping or a list of these, not {_shown(message)}")


def build(kind: type[Any], fields: Mapping[str, Any], path: str = "") -> Any:
    """The protobuf message with these fields; InvalidArgument names the one that it cannot hold, below `path`."""
    try:
        return kind(**fields)
    except (TypeError, ValueError):
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except UnicodeError:
                raise refuse(f"{path}{name}", "is not Unicode text", "encoding") from None
            except (TypeError, ValueError):
                known = name in kind.DESCRIPTOR.fields_by_name
                why = f"cannot be {_shown(value)}" if known else "is not known"
                raise refuse(f"{path}{name}", why) from None
        raise


def _part(path: str, value: object) -> Any:
    kind = pb("kfm.type.v1.Part")
    if isinstance(value, str):
        value = Part(text=value)
    elif isinstance(value, Mapping):
        try:
            value = Part(data_json=json.dumps(value, ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise refuse(path, f"is no JSON: {error}") from None
    if not isinstance(value, Part):
        raise refuse(path, f"must be text, a Part or a mapping, not {_shown(value)}")
    return build(kind, {"text": value.text, "data_json": value.data_json}, f"{path}.")


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:60] + '…'} ({type(value).__name__})"
