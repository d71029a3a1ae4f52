"""Bodies too large for an event: an output goes to the blob store, arguments made of it stand as their recipe. Pure."""

from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.references import resolve_arguments
from kfm_server.turns.state import Step, Turn

MAX_BODY_BYTES = 262_144
"""Largest output or arguments that stand in an event, in bytes of UTF-8. A message stands in its event as it came."""
_UNDO = '{"arguments":'


def is_large(text: str) -> bool:
    """Whether a text is too large for an event."""
    return len(text) > MAX_BODY_BYTES or (len(text) * 4 > MAX_BODY_BYTES < len(text.encode()))


def arguments_to_record(turn: Turn, definition: types.PlanStep) -> str:
    """The arguments of a step with its references resolved; as planned, references and all, when that is too large.

    Raises UnresolvedReference.
    """
    resolved = _resolved(turn, definition)
    return definition.arguments_json if is_large(resolved) else resolved


def arguments_of(turn: Turn, step: Step) -> str:
    """What the tool of the step's last dispatch gets: what was recorded, or what the recorded recipe comes to."""
    sent = step.dispatch
    assert sent is not None
    recorded, planned = sent.parameters_json, step.definition.arguments_json
    if '"$ref"' not in planned or planned not in recorded:
        return recorded
    # What was resolved and is still as planned resolves to itself: no mark is needed to tell the two apart.
    if recorded == planned:
        return _resolved(turn, step.definition)
    if sent.compensation and recorded.startswith(f"{_UNDO}{planned},"):
        return f"{_UNDO}{_resolved(turn, step.definition)}{recorded[len(_UNDO) + len(planned) :]}"
    return recorded


def undo_arguments(arguments_json: str, key: str) -> str:
    """What a compensation gets: the arguments of the attempt that it undoes, and its key."""
    return f'{_UNDO}{arguments_json},"key":"{key}"}}'


def _resolved(turn: Turn, definition: types.PlanStep) -> str:
    outputs = {k: s.output_json for k, s in turn.steps.items() if s.phase == api.STEP_STATE_SUCCEEDED}
    return resolve_arguments(definition.arguments_json, outputs)
