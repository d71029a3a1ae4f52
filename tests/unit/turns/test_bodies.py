"""Arguments too large for an event stand there as their recipe, and come out whole."""

import json
from typing import Any

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types
from kfm_server.canonical import canonical_json
from kfm_server.turns.bodies import (
    MAX_BODY_BYTES,
    arguments_of,
    arguments_to_record,
    is_large,
    undo_arguments,
)
from kfm_server.turns.state import Step, Turn

pytestmark = pytest.mark.requirement("R4")


def turn_with(output: Any, arguments: Any, sent: str = "", *, undoes: bool = False) -> tuple[Turn, Step]:
    """A turn whose step `s1` answered, and its step `s2`, dispatched if something was sent."""
    first = Step(
        definition=types.PlanStep(key="s1"),
        index=0,
        phase=api.STEP_STATE_SUCCEEDED,
        output_json=canonical_json(output),
    )
    second = Step(
        definition=types.PlanStep(key="s2", arguments_json=canonical_json(arguments)),
        index=1,
        dispatch=ev.StepEvent(parameters_json=sent, compensation=undoes) if sent else None,
    )
    turn = Turn(
        turn_id="turn_1",
        session_id="ses_1",
        tenant_id="default",
        trace_id="",
        traceparent="",
        request=ev.TurnEvent(),
        submitted_us=0,
        deadline_us=0,
        steps={"s1": first, "s2": second},
    )
    return turn, second


@pytest.mark.parametrize(("letter", "bytes_each"), [("a", 1), ("ö", 2), ("🜁", 4)])
def test_the_limit_counts_bytes_not_characters(letter: str, bytes_each: int) -> None:
    most = MAX_BODY_BYTES // bytes_each
    assert not is_large(letter * most)
    assert is_large(letter * (most + 1))


REF = {"a": {"$ref": "s1#/x"}}


@pytest.mark.parametrize("size", [10, MAX_BODY_BYTES])
@pytest.mark.parametrize("undoes", [False, True])
def test_what_a_tool_gets_does_not_depend_on_how_it_was_recorded(size: int, undoes: bool) -> None:
    whole = {"a": "x" * size}
    turn, step = turn_with({"x": "x" * size}, REF)
    recorded = arguments_to_record(turn, step.definition)
    assert not is_large(recorded)
    sent = undo_arguments(recorded, "turn_1:s2") if undoes else recorded
    turn, step = turn_with({"x": "x" * size}, REF, sent, undoes=undoes)
    expected = {"arguments": whole, "key": "turn_1:s2"} if undoes else whole
    assert json.loads(arguments_of(turn, step)) == expected


def test_an_output_that_looks_like_a_reference_is_data() -> None:
    for value in ({"$ref": "s1#/x"}, {"$ref": "s1#/y"}, {"$ref": "nonsense"}):
        turn, step = turn_with({"x": value, "y": 1}, REF)
        recorded = arguments_to_record(turn, step.definition)
        assert json.loads(recorded) == {"a": value}
        turn, step = turn_with({"x": value, "y": 1}, REF, recorded)
        assert arguments_of(turn, step) == recorded
