"""Turns that a model plans, over the whole stack: SDK, gRPC, engine, adapter, HTTP and back."""

from typing import Any

import pytest
from xenocomm import Client
from xenocomm._gen.errors import InvalidArgument, StateConflict
from xenocomm._gen.types import Outcome, Part, PlanChange, PlanEvent, StepKind, StepState, Turn
from xenocomm.deltas import Piece

from tests.support.model_server import ModelServer

pytestmark = pytest.mark.requirement("R3", "P1", "P3")

PARALLEL = (
    {
        "step": 0,
        "reply": {
            "text": "Let me see.",
            "reasoning": "Neither needs the other.",
            "tools": [
                {"name": "calculator", "arguments": {"expression": "17 * 3"}},
                {"name": "todo_store", "arguments": {"action": "add", "title": "buy milk"}},
            ],
        },
    },
    {"reply": {"text": "Seventeen times three is fifty-one, and milk is on your list.", "chunk_chars": 4}},
)
each = pytest.mark.parametrize("adapter", ["direct", "lite", "claude", "llama"])
"""OpenAI and what is compatible with it, directly and by LiteLLM; Anthropic; Ollama."""


def models_of(turn: Turn) -> list[Any]:
    """Its model and plan steps."""
    kinds = (StepKind.MODEL, StepKind.PLAN)
    return [step for step in turn.steps if step.definition and step.definition.kind in kinds]


async def plans_of(live: Client, turn_id: str) -> list[PlanEvent]:
    """Its plan events, in order."""
    found = [envelope.event async for envelope in live.turns.attach(turn_id).events()]
    return [event for event in found if isinstance(event, PlanEvent)]


@each
async def test_two_tool_calls_run_side_by_side_and_the_answer_streams_in_pieces(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(*PARALLEL)
    message = "Add buy milk to my list and compute 17 * 3"
    handle = await model_live.turns.start(message, personality=f"{adapter}-react", watch=True)
    pieces = [delta async for delta in handle.deltas() if isinstance(delta, Piece)]
    turn = await handle.result()
    answer = "Seventeen times three is fifty-one, and milk is on your list."
    assert [part.text for part in turn.output] == [answer]
    said = [piece.text for piece in pieces if piece.step_key == "m2" and piece.kind == "text"]
    assert "".join(said) == answer
    assert len(said) > 5
    assert "".join(p.text for p in pieces if p.kind == "reasoning") == "Neither needs the other."
    assert any(p.kind == "tool_arguments" for p in pieces)
    assert [step.definition.key for step in turn.steps if step.definition] == ["m1", "m1.c1", "m1.c2", "m2"]
    assert all(step.state == StepState.SUCCEEDED for step in turn.steps)
    usage = turn.usage
    assert usage is not None
    assert (usage.model_calls, usage.tool_calls) == (2, 2)
    assert usage.cost_nanos == 1000 * usage.input_tokens + 2000 * usage.output_tokens
    assert len({a.provider_request_id for s in models_of(turn) for a in s.attempts}) == 2
    assert model_server.count() == 2


@each
async def test_a_plan_is_written_run_and_summed_up(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    steps = [
        {"key": "sum", "tool": "calculator", "arguments": {"expression": "6 * 7"}},
        {"key": "list", "tool": "todo_store", "arguments": {"action": "list"}},
    ]
    model_server.play(
        {"schema": True, "reply": {"json": {"steps": steps}}}, {"reply": {"text": "It is {{last_user}}"}}
    )
    turn = await model_live.turns.run(
        "What is 6 * 7, and what do I have to do?", personality=f"{adapter}-plan"
    )
    assert [step.definition.key for step in turn.steps if step.definition] == [
        "plan",
        "sum",
        "list",
        "answer",
    ]
    assert "42" in turn.output[0].text
    assert model_server.count() == 2


@pytest.mark.requirement("R5")
async def test_a_session_remembers_what_was_said_in_it(model_live: Client, model_server: ModelServer) -> None:
    model_server.play({"reply": {"text": "Your name is noted."}})
    first = await model_live.turns.run("My name is Ada.", personality="direct-react")
    await model_live.turns.run("What is my name?", personality="direct-react", session_id=first.session_id)
    sent = [(m["role"], m["content"]) for m in model_server.requests()[-1]["body"]["messages"]]
    assert sent[1:] == [
        ("user", "My name is Ada."),
        ("assistant", "Your name is noted."),
        ("user", "What is my name?"),
    ]


@each
async def test_an_answer_comes_in_the_type_that_was_asked_for(
    adapter: str, model_live: Client, model_server: ModelServer
) -> None:
    schema = {
        "type": "object",
        "properties": {"total": {"type": "integer"}},
        "required": ["total"],
        "additionalProperties": False,
    }
    model_server.play(
        {"user": "cannot be used", "reply": {"json": {"total": 3}}}, {"reply": {"json": {"total": "many"}}}
    )
    value = await model_live.turns.run("How many?", personality=f"{adapter}-react", output=schema)
    assert value == {"total": 3}
    assert model_server.count() == 2


async def test_a_fork_at_a_model_step_keeps_what_came_before_it(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(*PARALLEL)
    turn = await model_live.turns.run("Add buy milk and compute", personality="direct-react")
    model_server.play({"reply": {"text": "Fifty-one."}})
    fork = await (await model_live.turns.attach(turn.turn_id).fork("m2")).result()
    assert fork.output[0].text == "Fifty-one."
    assert model_server.count() == 1
    assert fork.usage is not None and fork.usage.model_calls == 1


async def test_limits_hold_before_the_call(model_live: Client, model_server: ModelServer) -> None:
    model_server.play(*PARALLEL)
    for limits in ({"max_tokens": 40}, {"max_cost": "0.00000001"}):
        turn = await model_live.turns.run("Add", personality="direct-react", limits=limits, check=False)
        assert turn.error is not None and turn.error.reason == "REASON_BUDGET_EXCEEDED"
    assert model_server.count() == 0
    turn = await model_live.turns.run(
        "Add", personality="direct-react", limits={"max_model_calls": 1}, check=False
    )
    assert turn.error is not None and "max_model_calls" in turn.error.message
    assert model_server.count() == 1


@pytest.mark.parametrize("message", ["", " \n\t", [Part(text=" "), Part(text="\u3000")]])
async def test_a_message_that_says_nothing_is_refused_and_no_model_is_asked(
    message: Any, model_live: Client, model_server: ModelServer
) -> None:
    model_server.play({"reply": {"text": "You said nothing."}})
    with pytest.raises(InvalidArgument, match=r"turn\.input: says nothing"):
        await model_live.turns.run(message, personality="direct-react")
    assert model_server.count() == 0


async def test_the_model_is_told_of_a_call_that_cannot_be_made_and_mends_it(
    model_live: Client, model_server: ModelServer
) -> None:
    call = {"name": "calculator", "arguments": {"expression": "1 + 1"}}
    model_server.play(
        {"step": 0, "reply": {"tools": [{"name": "calculator", "arguments": {"formula": "1+1"}}]}},
        {"step": 1, "reply": {"tools": [call]}},
        {"reply": {"text": "{{last_tool}}"}},
    )
    turn = await model_live.turns.run("Add", personality="direct-react")
    assert [step.state for step in turn.steps] == [
        StepState.SUCCEEDED,
        StepState.SKIPPED,
        StepState.SUCCEEDED,
        StepState.SUCCEEDED,
        StepState.SUCCEEDED,
    ]
    changes = [plan.change for plan in await plans_of(model_live, turn.turn_id)]
    assert changes == [PlanChange.MADE, PlanChange.REPAIRED, PlanChange.EXTENDED]
    assert turn.outcome == Outcome.SUCCEEDED and "1 + 1 = 2" in turn.output[0].text


async def test_a_call_that_could_not_be_made_is_no_place_to_fork_from(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(
        {"step": 0, "reply": {"tools": [{"name": "rocket", "arguments": {}}]}},
        {"reply": {"text": "There is no rocket."}},
    )
    turn = await model_live.turns.run("Fly", personality="direct-react")
    with pytest.raises(StateConflict, match=r"m1\.c1"):
        await (await model_live.turns.attach(turn.turn_id).fork("m1.c1")).result()
