"""The answer of a turn, from what its steps answered. Pure."""

from collections.abc import Iterable

from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import canonical_json, parse_json

MAX_TEXT = 65_536
"""Longest text of an answer, in characters; more is cut and says so."""
MAX_DATA_BYTES = 262_144
"""Largest data part, in bytes; a larger one is left out: the outputs stand with the steps."""


def render_answer(answers: Iterable[tuple[types.PlanStep, str]]) -> tuple[types.Part, ...]:
    """The answer's parts: one text, in the order of the plan, and the outputs by step key as data.

    A tool speaks for itself through the key "text" of its output; what has none is only in the data.

    Args:
        answers: each step of the plan and its output as JSON; steps without one (empty) are passed over.
    """
    texts: list[str] = []
    data: dict[str, object] = {}
    for step, output_json in answers:
        if not output_json:
            continue
        value = parse_json(output_json)
        data[step.key] = value
        text = value if isinstance(value, str) else value.get("text") if isinstance(value, dict) else None
        if isinstance(text, str) and text.strip():
            texts.append(text.strip())
    joined = "\n".join(texts)
    if len(joined) > MAX_TEXT:
        joined = joined[: MAX_TEXT - 2] + " …"
    parts = [types.Part(text=joined)] if joined else []
    document = canonical_json(data)
    if data and len(document.encode()) <= MAX_DATA_BYTES:
        parts.append(types.Part(data_json=document))
    return tuple(parts)
