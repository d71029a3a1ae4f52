"""Ways to say things, with what must come of each. They were written after the rules.

A plan is a list of (tool, arguments); REFUSED means that a refusal with a reason is the only right answer.
Four of them changed the rules since (two quoted titles at once, "everything on it", signs with thanks behind, and
mixed operations in words), so for those four, and from now on for all, this is a regression test, no blind one.
"""

from typing import Any, Final

REFUSED: Final = None

_MILK = ("todo_store", {"action": "add", "title": "buy milk"})
_ALL = ("todo_store", {"action": "list", "filter": "all"})
_OPEN = ("todo_store", {"action": "list", "filter": "open"})
_DONE = ("todo_store", {"action": "list", "filter": "done"})
_BOTH: list[tuple[str, dict[str, Any]]] = [_MILK, _ALL]
_THE_SUM: list[tuple[str, dict[str, Any]]] = [("calculator", {"expression": "(17 + 5) * 3 / 2"})]


def _sum(expression: str) -> list[tuple[str, dict[str, Any]]]:
    return [("calculator", {"expression": expression})]


PARAPHRASES: list[tuple[str, list[tuple[str, dict[str, Any]]] | None]] = [
    ('Could you put "buy milk" on my to-do list and then show me everything on it?', _BOTH),
    ("Please create a todo called buy milk, and after that list all of my todos.", _BOTH),
    ("Add buy milk to my todo list; what's on my list now?", _BOTH),
    ("I'd like to add a task: buy milk. Then show me my task list.", _BOTH),
    ("New todo: buy milk. Show all my todos.", _BOTH),
    ("Make a new task to buy milk and display my tasks.", _BOTH),
    ("Can you remind me to buy milk, then tell me what tasks I have?", _BOTH),
    ("Jot down buy milk on my list and print my todos", _BOTH),
    ("First add a todo to buy milk, then list my tasks.", _BOTH),
    ("Insert a todo item: buy milk; afterwards, show my tasks", _BOTH),
    ("Don\u2019t let me forget to buy milk, and show me my todos", _BOTH),
    ("Note to self: buy milk", [_MILK]),
    ("Which tasks are still open?", [_OPEN]),
    ("List my completed tasks", [_DONE]),
    ("Check off buy milk", [("todo_store", {"action": "complete", "title": "buy milk"})]),
    (
        "Add a todo to buy milk and mark it as done",
        [_MILK, ("todo_store", {"action": "complete", "id": {"$ref": "s1#/todo/id"}})],
    ),
    ("Tell me the result of (17 + 5) * 3 / 2", _THE_SUM),
    ("(17+5)*3/2", _THE_SUM),
    ("(17 + 5) * 3 / 2 = ?", _THE_SUM),
    ("How much is (17 plus 5) times 3 divided by 2?", _THE_SUM),
    ("Compute seventeen plus five, times three, divided by two", _THE_SUM),
    ("Please calculate (17+5)\u00d73÷2 for me, thanks!", _THE_SUM),
    ("What do you get when you add 17 and 5, multiply the result by 3 and divide that by 2?", _THE_SUM),
    ("Evaluate: (17 + 5) * 3 / 2", _THE_SUM),
    ("What is 20 percent of 150?", _sum("20 / 100 * 150")),
    ("What is 2 + 2, and show me my tasks", [*_sum("2 + 2"), _ALL]),
    ("Don't add anything, just show me my tasks", REFUSED),
    ("Never add a todo to buy milk", REFUSED),
    ("Do not remind me to buy milk", REFUSED),
    ("Have I bought milk?", REFUSED),
    ("Did you add a todo to buy milk?", REFUSED),
    ("Add a todo to buy milk and show me Anna's tasks", REFUSED),
    ("Remind Anna to buy milk", REFUSED),
    ("Add a todo to Anna's list", REFUSED),
    ("Show me everybody's tasks", REFUSED),
    ("Remind me every day to buy milk", REFUSED),
    ("Remind me in an hour to buy milk", REFUSED),
    ("Remind me to buy milk tomorrow at 5", REFUSED),
    ("Add a todo to buy milk on 03/04", REFUSED),
    ("Add a todo to buy milk unless there is some", REFUSED),
    ("Add a todo to buy milk. Actually, don't.", REFUSED),
    ("Add a todo to buy milk and then book me a flight", REFUSED),
    ('Add "buy milk" and "call mom" to my todos', REFUSED),
    ("Delete everything", REFUSED),
    ("Remove the second task", REFUSED),
    ("Mark it done", REFUSED),
    ("Show me my tasks sorted by date", REFUSED),
    ("What is 17 plus 5 times 3 divided by 2?", REFUSED),
    ("17 and 5", REFUSED),
    ("What is (17 + 5 * 3 / 2 ?", REFUSED),
    ("What is (17 kg + 5 kg) * 3 / 2?", REFUSED),
    ("Is (17 + 5) * 3 / 2 more than 30?", REFUSED),
    ("What is 100 minus 20 percent?", REFUSED),
    ("What is 1,5 * 2?", REFUSED),
    ("What is 12/25/2026?", REFUSED),
    ("What is 2(3 + 4)?", REFUSED),
    ("Add 17 and 5, but do not multiply.", REFUSED),
    ("What's the weather like?", REFUSED),
    ("", REFUSED),
]
