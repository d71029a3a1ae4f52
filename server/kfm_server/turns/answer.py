"""The answer of a turn, from what its steps answered. Pure."""

from collections.abc import Iterable
from functools import lru_cache

from jsonschema_rs import Draft202012Validator
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import canonical_parsed, parse_json
from kfm_server.schema_work import TooMuchWork, check_work, depth_of
from kfm_server.tool_catalogue import compiled, describe
from kfm_server.turns.replies import Reply, json_in, read_reply
from kfm_server.turns.state import MODEL_KINDS, Turn

MAX_TEXT = 65_536
"""Longest text of an answer, in characters; more is cut and says so."""
MAX_DATA_BYTES = 262_144
"""Largest data part, in bytes; a larger one is left out: the outputs stand with the steps."""

CUT_OFF = "… [cut off: the model reached its limit on output tokens]"
"""Ends an answer whose last reply did not come to its end."""


def answer_of(turn: Turn) -> tuple[types.Part, ...]:
    """What the turn answers: the model's last word where one was asked, else what its steps came to."""
    last = turn.last_step
    if last is None or last.definition.kind != types.STEP_KIND_MODEL:
        done = (s for s in turn.steps.values() if s.definition.kind not in MODEL_KINDS)
        return render_answer((s.definition, s.output_json) for s in done)
    reply = read_reply(last.output_json)
    text = reply.text.strip()
    if turn.request.output_schema_json:
        return (types.Part(data_json=canonical_parsed(json_in(text))),)
    if reply.cut:
        text = f"{text[: MAX_TEXT - len(CUT_OFF) - 1]} {CUT_OFF}"
    return (types.Part(text=_cut(text)),) if text else ()


def misfit(turn: Turn, reply: Reply) -> str:
    """What keeps a model's reply from being the data that the turn was asked for; empty if it fits."""
    if not turn.request.output_schema_json:
        return ""
    if reply.cut:
        return "the answer was cut off: it reached the limit on output tokens and has to be shorter"
    try:
        value = json_in(reply.text)
    except ValueError as wrong:
        return f"the answer is {wrong}"
    if len(canonical_parsed(value).encode()) > MAX_DATA_BYTES:
        return f"the answer is larger than {MAX_DATA_BYTES} bytes"
    return _misfit(turn.request.output_schema_json, value)


def misfit_of_parts(turn: Turn, parts: Iterable[types.Part]) -> str:
    """The same for an answer that no model gave: one of its data parts has to fit."""
    if not turn.request.output_schema_json:
        return ""
    data = [parse_json(part.data_json) for part in parts if part.WhichOneof("content") == "data_json"]
    problems = [_misfit(turn.request.output_schema_json, value) for value in data]
    if not problems:
        return "the answer has no data"
    return "" if not all(problems) else problems[0]


def _misfit(schema_json: str, value: object) -> str:
    if '"$ref"' in schema_json:
        try:
            check_work(parse_json(schema_json), depth_of(value))
        except TooMuchWork as work:
            return f"the answer cannot be held against the schema: {work}"
    if _schema(schema_json).is_valid(value):
        return ""
    return f"the answer does not fit the schema: {describe(next(_schema(schema_json).iter_errors(value)))}"


@lru_cache(maxsize=256)
def _schema(schema_json: str) -> Draft202012Validator:
    return compiled(parse_json(schema_json))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 2] + " …"


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
    joined = _cut("\n".join(texts))
    parts = [types.Part(text=joined)] if joined else []
    document = canonical_parsed(data)
    if data and len(document.encode()) <= MAX_DATA_BYTES:
        parts.append(types.Part(data_json=document))
    return tuple(parts)
