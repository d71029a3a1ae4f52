"""Twenty paraphrases by someone who had not read the rules. They may be refused; they may never be planned wrongly.

The expectations were written down after the first run and the rules were not changed for them.
"""

import json

import pytest
from kfm.type.v1 import type_pb2 as types
from kfm_server.tools.registry import build_registry
from kfm_server.turns.planners import Planned, Refused, plan

MILK = [("add", "buy milk"), ("list", None)]
BUYING = [("add", "buying milk"), ("list", None)]
SUM = "(17 + 5) * 3 / 2"

PLANNED = {
    "Could you add buying milk to my tasks and then tell me what's on the list?": BUYING,
    "New todo: buy milk. Then show all todos.": MILK,
    "remember that I need to buy milk, then list my tasks": MILK,
    "what do I have to do?": [("list", None)],
    "What's (17 + 5) * 3 / 2?": SUM,
    "compute (17+5)*3/2": SUM,
    "how much is seventeen plus five, times three, divided by two?": SUM,
    "(17 + 5) × 3 ÷ 2 =": SUM,  # noqa: RUF001 (as people type it)
    "add 17 and 5, multiply by 3 and halve it": SUM,
    "tell me the result of 17 + 5 * 3 / 2": "17 + 5 * 3 / 2",
}
REFUSED = [
    "Please put milk on my to-do list and after that list everything",
    "I want to buy milk; add it as a task and show me my tasks",
    "Add 'buy milk' to my todos, afterwards display all of them",
    "do not add a todo to buy milk",
    "Create a todo buy milk and one to call mom, then show my list",
    "jot down: buy milk. what else is on there?",
    "Evaluate the expression (17+5)*3/2 please",
    "17 plus 5 times 3 over 2",
    "can you calculate 3/2 of (17+5)?",
    "Is (17 + 5) * 3 / 2 equal to 33?",
]
TOOLS = build_registry().catalogue


@pytest.mark.requirement("R3")
@pytest.mark.parametrize("text", [*PLANNED, *REFUSED])
def test_a_paraphrase_is_planned_rightly_or_refused_with_a_reason(text: str) -> None:
    made = plan((types.Part(text=text),), TOOLS)
    if isinstance(made, Refused):
        assert text in REFUSED
        assert made.reason == "REASON_PLAN_NOT_POSSIBLE" and made.message
        return
    assert isinstance(made, Planned)
    arguments = [json.loads(step.arguments_json) for step in made.steps]
    wanted = PLANNED[text]
    if isinstance(wanted, str):
        assert [a["expression"] for a in arguments] == [wanted]
    else:
        assert [(a["action"], a.get("title")) for a in arguments] == wanted
