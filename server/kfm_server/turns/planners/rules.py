"""The planner without a model: it takes a message only if it understands the whole of it."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import canonical_json
from kfm_server.turns.planners.arithmetic import asks_anew, commas_in_two_ways, read_arithmetic
from kfm_server.turns.planners.titles import NotUnderstood
from kfm_server.turns.planners.todos import Before, read_todo
from kfm_server.turns.planners.types import (
    PLAN_NOT_POSSIBLE,
    Planned,
    Refused,
    ToolCatalogue,
    complexity_of,
)

NAME: Final = "rules"
MAX_TEXT: Final = 2000
"""Longest message that is read, in characters."""
MAX_CLAUSES: Final = 20

_CAN = (
    "Without a model I can compute arithmetic (what is (17 + 5) * 3 / 2 ?) and keep your todo list "
    "(add a todo to buy milk; show me all my tasks; complete, rename or delete a todo by its title; "
    "any title can be in quotes)."
)
_A_SUM = re.compile(r"\d.*?(?:[-+*/^%,!]|plus|minus|times|divided|power|squared|and)", re.DOTALL)
_HOW = (
    "; write a sum with signs and with parentheses wherever it could be read in two ways, and ask for each by itself, "
    "for example: what is (-2) ** 2, and what is 17 mod 5"
)
_QUOTED = re.compile(
    "\"[^\"\n]{1,600}\"|“[^”\n]{1,600}”|\u2018[^\u2019\n]{1,600}\u2019(?!\\w)|(?<![^\\s:(])'[^'\n]{1,600}'(?![^\\s.,;:!?)])|«[^»\n]{1,600}»"
)
_HARD = re.compile(
    r"\s*;\s*|\s*\n\s*|(?<!\bDr\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bSt\.)(?<!\bvs\.)(?<=[.!?])\s+"
    r"|(?:\s*,)?\s+(?:and\s+)?(?:then|afterwards|after that|finally|lastly)\b[\s,]*"
    r"|(?:\s*,\s*|\s+and\s+)(?:also|once (?:that|it)(?:'s| is) done)\b[\s,]*",
    re.IGNORECASE,
)
_SOFT = re.compile(r"\s*,\s*and\s+|\s*,\s*|\s+and\s+|\s+&\s+", re.IGNORECASE)
_COURTESY = re.compile(
    r"(?:(?:hi|hello|hey|thanks|thank you|please|good (?:morning|evening|afternoon)|there|kfm|first|ok|okay|cheers)[\s,.!]*)*",
    re.IGNORECASE,
)


_STARTS = re.compile(r"\W*(?:(?:but|please|now|kfm)\W+)*(?:first|firstly)\b", re.IGNORECASE)
_GOES_ON = re.compile(r"\W*(?:(?:please|now|kfm)\W+)*(?:then|next|afterwards|after that)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Action:
    tool: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    of_last: bool = False
    bare: bool = False

    @property
    def adds(self) -> bool:
        return self.arguments.get("action") == "add"


def plan(input_parts: tuple[types.Part, ...], tools: ToolCatalogue) -> Planned | Refused:
    """A sequential plan of one step per clause, or why not.

    Nothing is left out and nothing is guessed: a message of which one part is not understood, or can be read in two
    ways, is refused with a sentence that says what can be done.
    """
    text = "\n".join(part.text for part in input_parts).strip()
    if not text:
        return _refuse("The message is empty.")
    if len(text) > MAX_TEXT:
        return _refuse(f"The message is longer than {MAX_TEXT} characters.")
    if re.search("[\ue000-\uf8ff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text):
        return _refuse("The message holds characters that are no text.")
    try:
        actions = _read(text)
    except NotUnderstood as why:
        return _refuse(f"Not done, because {why}.")
    except _TooMany:
        return _refuse("Not done, because it has too many parts; say it in several messages.")
    missing = sorted({action.tool for action in actions} - set(tools))
    if missing:
        return _refuse(f"The tool {missing[0]!r}, which this needs, is not available here.", say_what=False)
    steps = _steps(actions)
    return Planned(NAME, steps, complexity_of(steps))


def _refuse(why: str, *, say_what: bool = True) -> Refused:
    return Refused(PLAN_NOT_POSSIBLE, f"{why} {_CAN}" if say_what else why)


def _read(text: str) -> list[_Action]:
    if commas_in_two_ways(text):
        raise NotUnderstood(
            "a comma separates thousands in one place and what min, max or round take in another"
        )
    expression = read_arithmetic(text)
    if expression is not None:
        return [_compute(expression)]
    quotes: list[str] = []

    def mark(match: re.Match[str]) -> str:
        quotes.append(match[0])
        return f"\ue000{len(quotes) - 1}\ue001"

    marked = re.sub(r"[ \t\r]+", " ", _QUOTED.sub(mark, text))
    clauses = [
        clause for clause in _HARD.split(marked) if clause.strip() and not _COURTESY.fullmatch(clause.strip())
    ]
    if not clauses or len(clauses) > MAX_CLAUSES:
        raise NotUnderstood(
            "it holds nothing to do" if not clauses else f"it asks for over {MAX_CLAUSES} things"
        )
    actions: list[_Action] = []
    budget = _Budget()
    for number, clause in enumerate(clauses):
        if (number and _STARTS.match(clause)) or (not number and _GOES_ON.match(clause)):
            raise NotUnderstood("it is not clear what is to be done first; say it in its order")
        read = _clause(clause, quotes, budget, actions)
        if read is None:
            raise NotUnderstood(
                f"this part is not understood: {_plain(clause, quotes)!r}{_HOW if _A_SUM.search(clause) else ''}"
            )
        actions.extend(read)
    return actions


class _TooMany(Exception):
    pass


class _Budget:
    """Bounds the ways that a message is cut into clauses: planning must not hold up other sessions."""

    def __init__(self) -> None:
        self.left = 60

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _TooMany


def _clause(clause: str, quotes: list[str], budget: _Budget, before: list[_Action]) -> list[_Action] | None:
    """The actions of a clause: split where both halves are understood by themselves, else whole."""
    reason: NotUnderstood | None = None
    for match in _SOFT.finditer(clause):
        budget.spend()
        left, right = clause[: match.start()], clause[match.end() :]
        if _STARTS.match(right):
            continue
        try:
            first = _single(left, quotes, before)
            rest = first and _clause(right, quotes, budget, [*before, first])
        except NotUnderstood as why:
            reason = why
            continue
        if first and rest:
            return [first, *rest]
    whole = _single(clause, quotes, before)
    if whole is None and reason is not None:
        raise reason
    return None if whole is None else [whole]


def _single(clause: str, quotes: list[str], before: list[_Action]) -> _Action | None:
    expression = read_arithmetic(clause)
    if expression is not None:
        return None if before and not asks_anew(clause) else _compute(expression)
    todo = read_todo(clause, quotes, _told(before))
    return None if todo is None else _Action("todo_store", todo.arguments, todo.of_last, todo.bare)


def _told(actions: list[_Action]) -> Before:
    added = [action for action in actions if action.adds]
    others = [
        action
        for action in actions
        if not (action.adds or action.of_last or action.arguments.get("action") == "list")
    ]
    return Before(
        anything=bool(actions),
        added=bool(added),
        one_added=len(added) == 1 and not others,
        open_ended=bool(actions) and actions[-1].bare,
    )


def _compute(expression: str) -> _Action:
    return _Action("calculator", {"expression": expression})


def _plain(clause: str, quotes: list[str]) -> str:
    text = re.sub("\ue000(\\d+)\ue001", lambda match: quotes[int(match[1])], clause.strip())
    return text if len(text) <= 120 else text[:119] + "…"


def _steps(actions: list[_Action]) -> tuple[types.PlanStep, ...]:
    steps: list[types.PlanStep] = []
    last_added = ""
    for number, action in enumerate(actions, start=1):
        arguments = dict(action.arguments)
        if action.of_last:
            arguments["id"] = {"$ref": f"{last_added}#/todo/id"}
        depends_on = [steps[-1].key] if steps else []
        key = f"s{number}"
        steps.append(
            types.PlanStep(
                key=key,
                kind=types.STEP_KIND_TOOL,
                tool=action.tool,
                arguments_json=canonical_json(arguments),
                depends_on=depends_on,
            )
        )
        if action.adds:
            last_added = key
    return tuple(steps)
