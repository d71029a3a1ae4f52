"""When a session is looked at again though nothing arrives."""

import json

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types
from kfm_server.context import ExecutionContext
from kfm_server.tools.registry import ToolRegistry
from kfm_server.turns.decide.advance import advance
from kfm_server.turns.decide.control import control
from kfm_server.turns.decide.draft import Draft, World
from kfm_server.turns.decide.step import attempt_ended
from kfm_server.turns.decide.submit import submit
from kfm_server.turns.decide.waiting import next_wake_us
from kfm_server.turns.state import Session
from kfm_server.turns.times import US, duration

from tests.support.ledger import TOOLS

pytestmark = pytest.mark.requirement("R4")

REGISTRY = ToolRegistry(TOOLS)
WORLD = World(tools=REGISTRY.catalogue, tools_digest=REGISTRY.digest, schema_release="1.1.0")
NOW = 1_000 * US
TIMEOUT = 600 * US


def begun(*keys: str, in_flight: int = 16) -> Session:
    """A session whose turn has these IDEMPOTENT steps side by side, as many dispatched as may be."""
    steps = [{"key": key, "tool": "ledger_idempotent"} for key in keys]
    request = ev.TurnEvent(
        input=[types.Part(data_json=json.dumps({"plan": {"steps": steps}}))],
        on_busy=ev.BUSY_MODE_ENQUEUE,
        timeout=duration(TIMEOUT),
        limits=types.Limits(
            max_steps=10, max_attempts=3, max_in_flight=in_flight, step_timeout=duration(30 * US)
        ),
    )
    draft = Draft(Session("ses_1"), NOW, WORLD)
    submit(draft, ExecutionContext(session_id="ses_1"), "turn_1", request)
    return draft.session


def failed(
    session: Session,
    key: str,
    attempt: int = 1,
    reason: str = "REASON_TOOL_UNAVAILABLE",
    now_us: int = NOW,
) -> Session:
    """After an attempt that may be tried again."""
    draft = Draft(session, now_us, WORLD)
    error = types.Error(reason=reason, retryable=True)
    result = ev.StepResultEvent(step_key=key, status=ev.STEP_STATUS_FAILED, error=error)
    assert attempt_ended(draft, "turn_1", attempt, result)
    return draft.session


def looked_at(session: Session, now_us: int) -> Session:
    """After a timer went off."""
    draft = Draft(session, now_us, WORLD)
    advance(draft)
    return draft.session


def test_a_step_that_backs_off_wakes_the_session_at_its_time() -> None:
    session = failed(begun("s1"), "s1")
    wake = next_wake_us(session)
    assert wake is not None
    assert NOW < wake < NOW + US
    assert session.active is not None
    again = looked_at(session, wake)
    assert again.active is not None
    assert again.active.steps["s1"].phase == api.STEP_STATE_RUNNING


def test_a_step_whose_owner_was_never_sure_enough_waits_no_longer_each_time() -> None:
    session, now = begun("s1"), NOW
    for attempt in range(1, 20):
        session = failed(session, "s1", attempt, "REASON_FENCED", now)
        wake = next_wake_us(session)
        assert wake is not None and wake - now < 2 * US
        session, now = looked_at(session, wake), wake


def test_a_passed_back_off_of_a_paused_turn_does_not_wake_it_over_and_over() -> None:
    session = failed(begun("s1"), "s1")
    draft = Draft(session, NOW, WORLD)
    control(draft, "turn_1", ev.TurnControlEvent(verb=ev.TURN_VERB_PAUSE))
    later = NOW + 60 * US
    session = looked_at(draft.session, later)
    assert next_wake_us(session) == NOW + TIMEOUT


def test_a_passed_back_off_that_finds_no_room_waits_for_a_result_not_for_the_clock() -> None:
    session = failed(begun("s1", "s2", "s3", in_flight=1), "s1")
    later = NOW + 60 * US
    session = looked_at(session, later)
    assert session.active is not None
    assert session.active.steps["s2"].phase == api.STEP_STATE_RUNNING
    assert session.active.steps["s1"].phase == api.STEP_STATE_BACKING_OFF
    assert next_wake_us(session) == NOW + TIMEOUT
