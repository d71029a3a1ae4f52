"""Turns that a model plans: each reply is a recorded fact, and decides what follows."""

import json

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types
from kfm_server.models import ModelSpec, Personality
from kfm_server.tools.registry import build_registry
from kfm_server.turns.answer import CUT_OFF, MAX_TEXT
from kfm_server.turns.planners.agent import ASK_PERSON
from kfm_server.turns.recipes import recipe_of
from kfm_server.turns.state import Turn

from tests.support.deciding import BEGIN, Desk

pytestmark = pytest.mark.requirement("R3")

SMALL = ModelSpec("small", "scripted", "s", max_complexity=20)
LARGE = ModelSpec("large", "scripted", "l")
SUM = ("calculator", '{"expression":"1+2"}')
TODO = ("todo_store", '{"action":"list"}')


def desk(planner: str = "react", **changes: object) -> Desk:
    """A session whose turns are planned so, with two models."""
    personality = Personality(planner=planner, **changes)  # pyright: ignore[reportArgumentType]
    models = {"small": SMALL, "large": LARGE}
    return Desk(build_registry(""), personalities={"assistant": personality}, models=models)


def keys(turn: Turn) -> list[str]:
    """Its steps in order."""
    return list(turn.steps)


def test_a_reply_without_calls_is_the_answer() -> None:
    d = desk()
    d.say("turn_1", "hello")
    d.reply("m1", "good day")
    end = d.finish()
    assert end.outcome == ev.OUTCOME_SUCCEEDED
    assert [part.text for part in end.output] == ["good day"]
    assert (end.usage.model_calls, end.usage.input_tokens, end.usage.tool_calls) == (1, 10, 0)


def test_calls_of_one_reply_run_side_by_side_and_the_model_is_told_of_all() -> None:
    d = desk()
    d.say("turn_1", "add and list")
    d.reply("m1", "", SUM, TODO)
    assert sorted(start.step_key for start in d.starts) == ["m1.c1", "m1.c2"]
    d.ended("turn_1", "m1.c1", 1)
    assert not d.starts
    d.ended("turn_1", "m1.c2", 1)
    assert [start.step_key for start in d.starts] == ["m2"]
    recipe = recipe_of(d.turn("turn_1"), d.step("turn_1", "m2"))
    assert recipe is not None and [call.key for call in recipe.rounds[0].calls] == ["m1.c1", "m1.c2"]
    d.reply("m2", "done")
    assert d.finish().output[0].text == "done"
    changes = [plan.change for plan in d.of(ev.PlanEvent)]
    assert changes == [ev.PLAN_CHANGE_MADE, ev.PLAN_CHANGE_EXTENDED]


def test_a_tool_that_failed_is_told_to_the_model_and_does_not_end_the_turn() -> None:
    d = desk()
    d.say("turn_1", "add")
    d.reply("m1", "", SUM)
    d.ended("turn_1", "m1.c1", 1, ev.STEP_STATUS_FAILED, retryable=False)
    recipe = recipe_of(d.turn("turn_1"), d.step("turn_1", "m2"))
    assert recipe is not None and recipe.rounds[0].calls[0].error == "it failed"
    d.reply("m2", "it did not work")
    assert d.finish().outcome == ev.OUTCOME_SUCCEEDED


@pytest.mark.parametrize(
    "call", [("rm_rf", "{}"), ("calculator", "{not json"), ("calculator", '{"expression":1}'), ("", "{}")]
)
def test_a_call_that_cannot_be_made_is_skipped_with_a_record_and_the_model_is_told(
    call: tuple[str, str],
) -> None:
    d = desk()
    d.say("turn_1", "add")
    d.reply("m1", "", call, SUM)
    assert [start.step_key for start in d.starts] == ["m1.c2"]
    skipped = d.of(ev.StepResultEvent)[-1]
    assert (skipped.step_key, skipped.status) == ("m1.c1", ev.STEP_STATUS_SKIPPED)
    d.ended("turn_1", "m1.c2", 1)
    recipe = recipe_of(d.turn("turn_1"), d.step("turn_1", "m2"))
    assert recipe is not None and recipe.rounds[0].calls[0].error


def test_a_model_that_only_asks_for_impossible_calls_is_given_up_after_its_repairs() -> None:
    d = desk(max_repairs=2)
    d.say("turn_1", "add")
    for key in ("m1", "m2", "m3"):
        d.reply(key, "", ("nothing", "{}"))
    end = d.finish()
    assert (end.outcome, end.error.reason) == (ev.OUTCOME_FAILED, "REASON_PLAN_INVALID")


def test_the_model_that_fails_lets_hybrid_fall_back_to_rules_and_the_history_says_so() -> None:
    d = desk("hybrid")
    d.say("turn_1", "what is 2 + 3 ?")
    for attempt in (1, 2, 3):
        d.ended("turn_1", "m1", attempt, ev.STEP_STATUS_FAILED, reason="REASON_PROVIDER_UNAVAILABLE")
        d.wait(60_000_000)
    plan = d.of(ev.PlanEvent)[-1]
    assert (plan.change, plan.planner) == (ev.PLAN_CHANGE_REPAIRED, "rules")
    assert plan.error.reason == "REASON_PROVIDER_UNAVAILABLE"
    assert d.turn("turn_1").last_step is not None
    d.ended("turn_1", "s1", 1)
    assert d.finish().outcome == ev.OUTCOME_SUCCEEDED


def test_hybrid_does_not_fall_back_once_a_tool_has_run() -> None:
    d = desk("hybrid")
    d.say("turn_1", "what is 2 + 3 ?")
    d.reply("m1", "", SUM)
    d.ended("turn_1", "m1.c1", 1)
    d.ended("turn_1", "m2", 1, ev.STEP_STATUS_FAILED, reason="REASON_PROVIDER_REJECTED", retryable=False)
    end = d.finish()
    assert (end.outcome, end.error.reason) == (ev.OUTCOME_FAILED, "REASON_PROVIDER_REJECTED")


def test_hybrid_does_not_fall_back_where_only_a_model_can_give_what_was_asked_for() -> None:
    d = desk("hybrid")
    d.say("turn_1", "what is 2 + 3 ?", '{"type":"integer"}')
    d.ended("turn_1", "m1", 1, ev.STEP_STATUS_FAILED, reason="REASON_PROVIDER_REJECTED", retryable=False)
    assert d.finish().error.reason == "REASON_PROVIDER_REJECTED"


def test_react_without_rules_fails_with_the_reason_of_its_model() -> None:
    d = desk("react")
    d.say("turn_1", "what is 2 + 3 ?")
    d.ended("turn_1", "m1", 1, ev.STEP_STATUS_FAILED, reason="REASON_PROVIDER_REJECTED", retryable=False)
    assert d.finish().error.reason == "REASON_PROVIDER_REJECTED"


def test_the_router_takes_the_first_model_that_is_up_to_the_message() -> None:
    d = desk("hybrid")
    d.say("turn_1", "hello")
    assert d.of(ev.PlanEvent)[0].model == "small"
    d = desk("hybrid")
    d.say("turn_1", "compare the designs, explain why they differ, and then derive which one is better")
    assert d.of(ev.PlanEvent)[0].model == "large"


def test_a_provider_that_asks_for_time_gets_it() -> None:
    d = desk()
    d.say("turn_1", "hello")
    failure = types.Error(
        reason="REASON_PROVIDER_RATE_LIMITED", retryable=True, metadata={"retry_after_ms": "90000"}
    )
    d.result("m1", 1, ev.StepResultEvent(step_key="m1", status=ev.STEP_STATUS_FAILED, error=failure))
    wait = d.of(ev.TurnStateEvent)[-1]
    assert wait.wake_at.seconds * 1_000_000 >= BEGIN + 90_000_000


@pytest.mark.parametrize("limit", ["max_model_calls", "max_tokens", "max_cost_nanos"])
def test_a_limit_holds_before_the_next_call(limit: str) -> None:
    most = {"max_model_calls": 1, "max_tokens": 20, "max_cost_nanos": 10}[limit]
    d = desk()
    d.say("turn_1", "add", **{limit: most})
    d.reply("m1", "", SUM)
    d.ended("turn_1", "m1.c1", 1)
    end = d.finish()
    assert (end.outcome, end.error.reason) == (ev.OUTCOME_FAILED, "REASON_BUDGET_EXCEEDED")
    assert limit in end.error.message
    assert ("max_cost = USD 0.00000001" in end.error.message) == (limit == "max_cost_nanos")
    assert not [s for s in d.of(ev.StepEvent) if s.step_key == "m2"]


def test_calls_that_never_started_use_up_nothing() -> None:
    d = desk()
    d.say("turn_1", "add", max_model_calls=2)
    for attempt in range(1, 6):
        d.ended("turn_1", "m1", attempt, ev.STEP_STATUS_FAILED, reason="REASON_FENCED")
        d.wait(60_000_000)
    d.reply("m1", "", SUM, attempt=6)
    d.ended("turn_1", "m1.c1", 1, ev.STEP_STATUS_FAILED, reason="REASON_FENCED")
    d.wait(60_000_000)
    d.ended("turn_1", "m1.c1", 2)
    d.reply("m2", "done")
    end = d.finish()
    assert end.outcome == ev.OUTCOME_SUCCEEDED
    assert (end.usage.model_calls, end.usage.tool_calls) == (2, 1)


@pytest.mark.parametrize(("digest", "calls"), [("", 0), ("sha", 1)])
def test_a_call_that_was_refused_before_it_was_made_is_no_call(digest: str, calls: int) -> None:
    d = desk()
    d.say("turn_1", "add")
    refused = types.Error(reason="REASON_MODEL_NOT_FOUND", message="gone")
    metrics = ev.StepMetrics(prompt_digest=digest)
    result = ev.StepResultEvent(step_key="m1", status=ev.STEP_STATUS_FAILED, error=refused, metrics=metrics)
    d.result("m1", 1, result)
    assert d.finish().usage.model_calls == calls


def test_an_answer_from_the_cache_uses_up_nothing() -> None:
    d = desk()
    d.say("turn_1", "add", max_model_calls=1)
    d.reply("m1", "", SUM, cached=True)
    d.ended("turn_1", "m1.c1", 1)
    d.reply("m2", "done")
    end = d.finish()
    assert end.outcome == ev.OUTCOME_SUCCEEDED
    assert (end.usage.model_calls, end.usage.input_tokens, end.usage.tool_calls) == (1, 10, 1)


def test_a_call_whose_process_died_stays_counted_whatever_ends_it() -> None:
    d = desk()
    d.say("turn_1", "add", max_model_calls=1)
    d.taken_over(clean=True)
    end = d.finish()
    assert (end.error.reason, end.usage.model_calls) == ("REASON_BUDGET_EXCEEDED", 1)


def test_a_dispatch_says_what_is_left_of_the_limits() -> None:
    d = desk()
    d.say("turn_1", "add", max_tokens=100, max_cost_nanos=1000)
    d.reply("m1", "", SUM)
    d.ended("turn_1", "m1.c1", 1)
    sent = d.of(ev.StepEvent)[-1]
    assert (sent.step_key, sent.max_tokens, sent.max_cost_nanos) == ("m2", 80, 990)


def test_more_steps_than_the_turn_may_have_end_it_with_the_limit_named() -> None:
    d = desk()
    d.say("turn_1", "add", max_steps=3)
    d.reply("m1", "", SUM, SUM)
    assert d.finish().error.reason == "REASON_STEP_LIMIT_EXCEEDED"


def test_an_answer_that_does_not_fit_its_schema_is_asked_for_again() -> None:
    schema = '{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'
    d = desk()
    d.say("turn_1", "how many", schema)
    d.reply("m1", "three")
    assert "JSON" in d.step("turn_1", "m2").feedback
    d.reply("m2", '```json\n{"n": 3}\n```')
    assert [part.data_json for part in d.finish().output] == ['{"n":3}']


@pytest.mark.parametrize("text", ["Once upon a", "x" * (2 * MAX_TEXT)])
def test_an_answer_that_was_cut_off_says_so(text: str) -> None:
    d = desk()
    d.say("turn_1", "tell me a story")
    d.reply("m1", text, cut=True)
    end = d.finish()
    assert end.outcome == ev.OUTCOME_SUCCEEDED
    assert end.output[0].text.startswith(text[:100]) and end.output[0].text.endswith(CUT_OFF)
    assert len(end.output[0].text) <= MAX_TEXT


def test_data_that_was_cut_off_is_asked_for_again_and_the_model_is_told_why() -> None:
    d = desk()
    d.say("turn_1", "how many", '{"type":"integer"}')
    d.reply("m1", "12", cut=True)
    assert "cut off" in d.step("turn_1", "m2").feedback
    d.reply("m2", "1234")
    assert d.finish().output[0].data_json == "1234"


def test_an_answer_that_never_fits_fails_the_turn() -> None:
    d = desk(max_repairs=1)
    d.say("turn_1", "how many", '{"type":"integer"}')
    d.reply("m1", "three")
    d.reply("m2", "3.5")
    assert d.finish().error.reason == "REASON_OUTPUT_INVALID"


PLAN = {
    "steps": [
        {"key": "a", "tool": "calculator", "arguments": {"expression": "1+1"}},
        {"key": "b", "tool": "todo_store", "arguments": {"action": "list"}},
    ]
}


def test_a_plan_runs_whole_and_its_results_are_summed_up() -> None:
    d = desk("plan")
    d.say("turn_1", "add and list")
    d.reply("plan", json.dumps(PLAN))
    assert keys(d.turn("turn_1")) == ["plan", "a", "b", "answer"]
    assert sorted(start.step_key for start in d.starts) == ["a", "b"]
    d.ended("turn_1", "a", 1)
    d.ended("turn_1", "b", 1)
    recipe = recipe_of(d.turn("turn_1"), d.step("turn_1", "answer"))
    assert recipe is not None and recipe.purpose == "summarise"
    assert [call.key for call in recipe.rounds[0].calls] == ["a", "b"]
    d.reply("answer", "all done")
    assert d.finish().output[0].text == "all done"


def test_a_plan_that_is_none_is_repaired_by_the_model() -> None:
    d = desk("plan")
    d.say("turn_1", "add")
    d.reply("plan", "I would add the numbers.")
    recipe = recipe_of(d.turn("turn_1"), d.step("turn_1", "plan.2"))
    assert recipe is not None and "JSON" in recipe.rounds[0].feedback
    d.reply("plan.2", json.dumps(PLAN))
    assert [plan.change for plan in d.of(ev.PlanEvent)] == [
        ev.PLAN_CHANGE_MADE,
        ev.PLAN_CHANGE_REPAIRED,
        ev.PLAN_CHANGE_EXTENDED,
    ]


def test_what_no_repair_mends_is_left_out_with_a_record() -> None:
    bad = {"steps": [*PLAN["steps"], {"key": "c", "tool": "rocket", "arguments": {}}]}
    d = desk("plan", max_repairs=1)
    d.say("turn_1", "add")
    d.reply("plan", json.dumps(bad))
    d.reply("plan.2", json.dumps(bad))
    assert d.step("turn_1", "c").phase == api.STEP_STATE_SKIPPED
    assert sorted(start.step_key for start in d.starts) == ["a", "b"]


def test_what_follows_a_step_that_failed_is_left_out_and_the_model_is_told() -> None:
    second = {"key": "b", "tool": "todo_store", "arguments": {"action": "list"}, "depends_on": ["a"]}
    d = desk("plan")
    d.say("turn_1", "add, then list")
    d.reply("plan", json.dumps({"steps": [PLAN["steps"][0], second]}))
    d.ended("turn_1", "a", 1, ev.STEP_STATUS_FAILED, retryable=False)
    assert d.step("turn_1", "b").phase == api.STEP_STATE_SKIPPED
    assert [start.step_key for start in d.starts] == ["answer"]
    recipe = recipe_of(d.turn("turn_1"), d.step("turn_1", "answer"))
    assert recipe is not None and [call.error for call in recipe.rounds[0].calls] == [
        "it failed",
        "it follows a, which did not succeed",
    ]


def test_a_plan_without_steps_is_answered_at_once() -> None:
    d = desk("plan")
    d.say("turn_1", "thank you")
    d.reply("plan", '{"steps": []}')
    assert [start.step_key for start in d.starts] == ["answer"]


def test_who_asks_for_an_unknown_tool_is_told_that_a_person_may_be_asked() -> None:
    d = desk(tools=("calculator", ASK_PERSON))
    d.say("turn_1", "book it")
    d.reply("m1", "", ("rocket", "{}"))
    told = d.step("turn_1", "m1.c1").error
    assert told is not None and told.message.endswith("there are: calculator, ask_person")


def test_a_model_may_ask_a_person_where_its_personality_allows_it() -> None:
    d = desk(tools=("calculator", ASK_PERSON))
    d.say("turn_1", "book it")
    d.reply("m1", "", (ASK_PERSON, '{"question":"Which day?"}'))
    assert d.step("turn_1", "m1.c1").phase == api.STEP_STATE_WAITING
    d.ask("turn_1", ev.TURN_VERB_ANSWER, step_key="m1.c1", output_json='"Monday"')
    assert [start.step_key for start in d.starts] == ["m2"]


def test_tools_that_the_personality_does_not_name_cannot_be_called() -> None:
    d = desk(tools=("calculator",))
    d.say("turn_1", "list")
    d.reply("m1", "", TODO)
    assert d.of(ev.StepResultEvent)[-1].status == ev.STEP_STATUS_SKIPPED


def test_a_turn_keeps_the_personality_that_it_began_with() -> None:
    d = desk(tools=("calculator",))
    d.say("turn_1", "list")
    d.world = desk(tools=("todo_store",)).world
    d.reply("m1", "", SUM)
    assert [start.step_key for start in d.starts] == ["m1.c1"]


def test_a_call_whose_process_died_is_made_again_and_counted() -> None:
    d = desk()
    d.say("turn_1", "hello")
    d.taken_over(clean=True)
    assert [(start.step_key, start.attempt) for start in d.starts] == [("m1", 2)]
    d.reply("m1", "good day", attempt=2)
    used = d.finish().usage
    assert (used.model_calls, used.input_tokens) == (2, 10)


@pytest.mark.parametrize(
    "step",
    [
        {"key": "c", "tool": "calculator", "arguments": {"expression": "1"}, "depends_on": ["ghost"]},
        {"key": "c", "tool": "calculator", "arguments": {"expression": {"$ref": "d#/result"}}},
    ],
)
def test_a_step_that_waits_for_one_that_is_not_there_is_left_out(step: dict[str, object]) -> None:
    d = desk("plan", max_repairs=0)
    d.say("turn_1", "add")
    rocket = {"key": "d", "tool": "rocket", "arguments": {}}
    d.reply("plan", json.dumps({"steps": [*PLAN["steps"], step, rocket]}))
    assert d.step("turn_1", "c").phase == api.STEP_STATE_SKIPPED
    assert sorted(start.step_key for start in d.starts) == ["a", "b"]


def test_a_step_whose_key_is_none_is_never_recorded() -> None:
    d = desk("plan", max_repairs=0)
    d.say("turn_1", "add")
    d.reply("plan", json.dumps({"steps": [{"key": "A\n\0", "tool": "rocket", "arguments": {}}]}))
    assert "key" in d.finish().error.message


def test_a_plan_asks_a_person_only_where_the_personality_allows_it() -> None:
    plan = json.dumps({"steps": [{"key": "h", "kind": "human", "instructions": "Your password?"}]})
    d = desk("plan", tools=("calculator",), max_repairs=0)
    d.say("turn_1", "book it")
    d.reply("plan", plan)
    assert d.finish().error.reason == "REASON_PLAN_INVALID"
    d = desk("plan", tools=("calculator", ASK_PERSON))
    d.say("turn_1", "book it")
    d.reply("plan", plan)
    assert d.step("turn_1", "h").phase == api.STEP_STATE_WAITING


def test_hybrid_falls_back_when_its_model_only_asks_for_impossible_calls() -> None:
    d = desk("hybrid", max_repairs=0)
    d.say("turn_1", "what is 2 + 3 ?")
    d.reply("m1", "I take a rocket", ("rocket", "{}"))
    d.ended("turn_1", "s1", 1)
    output = d.finish().output
    assert "rocket" not in str(output)  # the answer is that of the plan by rules
    assert d.finish().outcome == ev.OUTCOME_SUCCEEDED


@pytest.mark.parametrize("planner", ["hybrid", "rules"])
def test_rules_call_only_what_the_personality_may_call(planner: str) -> None:
    d = desk(planner, tools=("calculator",))
    d.say("turn_1", "add a todo to buy milk")
    if planner == "hybrid":
        d.ended("turn_1", "m1", 1, ev.STEP_STATUS_FAILED, reason="REASON_PROVIDER_REJECTED", retryable=False)
    assert d.finish().outcome == ev.OUTCOME_FAILED
    assert not [s for s in d.of(ev.StepEvent) if s.tool == "todo_store"]


def test_a_thousand_steps_that_cannot_be_started_are_told_to_the_model() -> None:
    first = {"key": "a", "tool": "calculator", "arguments": {"expression": "1+1"}}
    title = {"$ref": "a#/nothing"}
    rest = [
        {"key": f"r{n}", "tool": "todo_store", "arguments": {"action": "add", "title": title}}
        for n in range(990)
    ]
    d = desk("plan")
    d.say("turn_1", "add", max_steps=1000)
    d.reply("plan", json.dumps({"steps": [first, *rest]}))
    d.ended("turn_1", "a", 1)
    assert [start.step_key for start in d.starts] == ["answer"]


def test_persons_are_no_tools_in_what_a_turn_has_used() -> None:
    d = desk(tools=(ASK_PERSON,))
    d.say("turn_1", "book it")
    d.reply("m1", "", (ASK_PERSON, '{"question":"Which day?"}'))
    d.ask("turn_1", ev.TURN_VERB_ANSWER, step_key="m1.c1", output_json='"Monday"')
    d.reply("m2", "booked")
    assert d.finish().usage.tool_calls == 0


def test_an_answer_too_deep_for_its_schema_is_one_that_does_not_fit() -> None:
    schema = '{"type":"array","items":{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}}'
    d = desk(max_repairs=0)
    d.say("turn_1", "nest", schema)
    d.reply("m1", "[" * 60 + "1" + "]" * 60)
    assert d.finish().error.reason == "REASON_OUTPUT_INVALID"
