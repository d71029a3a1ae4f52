"""Forks and retries of turns that a model plans: what is kept is not done again, and a new reply decides anew."""

import dataclasses
import json

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm_server.turns.recipes import recipe_of

from tests.support.deciding import Desk
from tests.unit.turns.decide.test_model_turns import PLAN, SUM, desk, keys

pytestmark = pytest.mark.requirement("R3")

ADD = ("todo_store", '{"action":"add","title":"buy milk"}')


def refused(d: Desk, turn_id: str, key: str) -> None:
    """The provider will never take the step's call."""
    d.ended(turn_id, key, 1, ev.STEP_STATUS_FAILED, reason="REASON_PROVIDER_REJECTED", retryable=False)


def starts(d: Desk) -> list[str]:
    """The steps that the last decision started."""
    return [start.step_key for start in d.starts]


def fallen_back() -> Desk:
    """A turn whose model failed and whose answer came by rules."""
    d = desk("hybrid")
    d.say("turn_1", "what is 2 + 3 ?")
    refused(d, "turn_1", "m1")
    d.ended("turn_1", "s1", 1)
    return d


def test_a_fork_at_the_plan_lets_the_model_plan_anew() -> None:
    d = desk("plan")
    d.say("turn_1", "add and list")
    d.reply("plan", json.dumps(PLAN))
    d.ended("turn_1", "a", 1)
    d.ended("turn_1", "b", 1)
    d.reply("answer", "all done")
    d.fork("turn_2", "plan")
    assert keys(d.turn("turn_2")) == ["plan"]
    assert starts(d) == ["plan"]


def test_a_fork_at_another_try_is_told_what_was_wrong_before() -> None:
    d = desk()
    d.say("turn_1", "how many", '{"type":"integer"}')
    d.reply("m1", "three")
    d.reply("m2", "3")
    d.fork("turn_2", "m2")
    recipe = recipe_of(d.turn("turn_2"), d.step("turn_2", "m2"))
    assert recipe is not None and "JSON" in recipe.rounds[0].feedback
    assert d.turn("turn_2").repairs == 1


def test_a_fork_behind_a_fallback_does_not_ask_the_model_that_failed() -> None:
    d = fallen_back()
    d.fork("turn_2", "s1")
    assert starts(d) == ["s1"]


def test_a_fork_at_the_model_that_failed_asks_it_again_and_may_fall_back_again() -> None:
    d = fallen_back()
    d.fork("turn_2", "m1")
    assert starts(d) == ["m1"]
    refused(d, "turn_2", "m1")
    assert keys(d.turn("turn_2")) == ["m1", "s1"]


def test_a_retry_whose_model_fails_again_does_not_do_by_rules_what_a_tool_has_done() -> None:
    d = desk("hybrid")
    d.say("turn_1", "add a todo to buy milk")
    d.reply("m1", "", ADD)
    d.ended("turn_1", "m1.c1", 1)
    refused(d, "turn_1", "m2")
    d.fork("turn_2")
    assert starts(d) == ["m2"]
    refused(d, "turn_2", "m2")
    assert not d.starts
    assert d.finish("turn_2").outcome == ev.OUTCOME_FAILED


def test_a_retry_begins_where_the_turn_failed_and_not_at_a_call_that_the_model_got_over() -> None:
    d = desk()
    d.say("turn_1", "add")
    d.reply("m1", "", ("calculator", "{not json"), SUM)
    d.ended("turn_1", "m1.c2", 1, ev.STEP_STATUS_FAILED, retryable=False)
    refused(d, "turn_1", "m2")
    d.fork("turn_2")
    assert starts(d) == ["m2"]
    assert d.step("turn_2", "m1.c1").phase == api.STEP_STATE_SKIPPED


def test_a_fork_keeps_to_its_personality_whatever_that_plans_with_by_now() -> None:
    d = desk(tools=("calculator",))
    d.say("turn_1", "list")
    d.reply("m1", "done")
    d.world = desk("rules", tools=("calculator",)).world
    d.fork("turn_2", "m1")
    d.reply_of("turn_2", "m1", "", ("todo_store", '{"action":"list"}'))
    assert d.step("turn_2", "m1.c1").phase == api.STEP_STATE_SKIPPED


def test_a_fork_whose_personality_is_gone_asks_no_model() -> None:
    d = desk()
    d.say("turn_1", "hello")
    d.reply("m1", "good day")
    d.world = dataclasses.replace(d.world, personalities={})
    d.fork("turn_2", "m1")
    assert not d.starts
    assert d.finish("turn_2").error.reason == "REASON_PERSONALITY_NOT_FOUND"
