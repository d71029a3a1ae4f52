"""W3C trace context, and the ids of spans: derived from what they stand for, so that whoever goes on with a turn names the same."""

import hashlib
import os
import re

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_NOTHING = re.compile(r"0+\Z")


def parse_traceparent(text: str) -> tuple[str, str, bool] | None:
    """Trace id, span id and whether it is sampled; None for what is no trace context of version 00."""
    match = _TRACEPARENT.match(text)
    if match is None or _NOTHING.match(match[1]) or _NOTHING.match(match[2]):
        return None
    return match[1], match[2], bool(int(match[3], 16) & 1)


def traceparent(trace_id: str, span_id: str, sampled: bool) -> str:
    """The trace context to hand on."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"


def new_span_id() -> str:
    """A span id by chance, 16 hex digits."""
    return os.urandom(8).hex()


def span_id(*names: str) -> str:
    """The span id of what the names name."""
    return hashlib.blake2b("/".join(names).encode(), digest_size=8).hexdigest()


def attempt_span_id(turn_id: str, step_key: str, attempt: int) -> str:
    """The span id of one attempt of a step: the parent of all that the attempt calls."""
    return span_id(turn_id, "step", step_key, str(attempt))


def attempt_traceparent(trace_id: str, begun_by: str, turn_id: str, step_key: str, attempt: int) -> str:
    """The trace context that an attempt hands on; `begun_by` is that of its turn. Empty if the turn has none."""
    parent = parse_traceparent(begun_by)
    if parent is None:
        return ""
    return traceparent(trace_id, attempt_span_id(turn_id, step_key, attempt), parent[2])


def in_ratio(trace_id: str, ratio: float) -> bool:
    """Whether a trace is among the share that is kept: the same answer in every process."""
    return int(trace_id[-16:] or "0", 16) < ratio * 2**64
