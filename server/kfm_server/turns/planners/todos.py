"""One clause about the speaker's own todo list, read into arguments of `todo_store`. All of it, or nothing."""

import re
from dataclasses import dataclass, field
from typing import Any

from kfm_server.turns.planners.titles import MARKED, NotUnderstood, read_title


@dataclass(frozen=True, slots=True)
class TodoAction:
    """Arguments of `todo_store`.

    of_last: they mean the todo that was added before in the same message.
    bare: they hold a title without quotes, whose end is where the clause ends.
    """

    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    of_last: bool = False
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before a clause in its message.

    anything: other clauses; added: a todo was added; one_added: only one, and "it" can mean nothing else;
    open_ended: a title without quotes stands right before, so that what follows may be meant as a part of it.
    """

    anything: bool = False
    added: bool = False
    one_added: bool = False
    open_ended: bool = False


_LEAD = re.compile(
    r"(?:(?:hey|hi|hello|ok|okay|please|kindly|now|also|and|then|first|firstly|next|afterwards|after that|"
    r"kfm|just|so|go ahead and|let's|help me(?: to)?|i'd like(?: you)? to|i would like(?: you)? to|"
    r"i (?:want|need)(?: you)? to|(?:can|could|would|will) you|(?:can|could|may) i|let me)[\s,:]+)+",
    re.IGNORECASE,
)
_ABOUT_ME = re.compile(
    r"\b(?:i(?:'d| would)? (?:like|want|need)(?! you)|let's|let me|help me)\b", re.IGNORECASE
)
_MAY_I = re.compile(r"\b(?:can|could|may) i\b", re.IGNORECASE)
_TAIL = re.compile(r"(?:\s*,\s*(?:thanks|thank you|for me|if you can)|[\s,]+please)*[\s.!?]*$", re.IGNORECASE)
_LIST_TAIL = re.compile(
    r"(?:[\s,]+(?:please|thanks|thank you|for me|now|right now|again|too|as well|so far|at the moment|currently))*[\s.!?]*$",
    re.IGNORECASE,
)

_NOUN = r"(?:to-?do|to do|task|reminder)(?: item)?"
_LISTS = r"(?:(?:to-?do|to do|task|todos|tasks)s? lists?|lists? of (?:to-?dos|tasks|things to do)|to-?dos|tasks|list)"
_MINE = r"(?:my|the|our own)"
_MY_LIST = rf"(?:{_MINE} {_LISTS}|(?:to-?do|to do|task)s? lists?)"
_STATE = r"(?P<state>open|pending|outstanding|remaining|unfinished|incomplete|active|completed|finished|done)"
_ITEMS = r"(?:to-?dos|to dos|to-?do items|to do items|tasks|task items|(?:to-?do|to do|task|todos|tasks) list|list)"
_DONE = frozenset(("complete", "completed", "finished", "done"))


def _compile(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(
        re.compile(pattern.replace("'", "['\u2019]"), re.IGNORECASE | re.DOTALL) for pattern in patterns
    )


_ON_IT = _compile(
    r"(?:show|tell|give|read|display|list|print)(?: me)? (?:everything|all|what's|what is)(?: that's)? on it"
)
_MAKE = r"(?:add|create|make|set up|set|put|start|new|record|log|note|save|insert|enter|register|write)"
_TODO = rf"(?:(?:a|an|another|one(?: more)?) )?(?:new )?{_NOUN}"
_CALLED = r"(?:called|named|titled|entitled|saying|that says|which says|that reads|about|with the title)"
_ADD = _compile(
    rf"{_MAKE}(?: me)? {_TODO}(?: for me)?(?: (?:on|to|in|into|onto|for) {_MY_LIST})?"
    rf"(?:,? to\s+(?P<task>.+)|(?:\s*[:\-\u2013]\s*|,? {_CALLED}\s*:?\s+)(?P<title>.+))",
    rf"{_MAKE}(?: me)? {_TODO}(?: for me)? (?P<title>\ue000\d+\ue001)",
    rf"{_MAKE} {_TODO} for (?P<title>\w+ing .+)",
    rf"(?:add|put|place|stick|include|append|write|jot|note|throw|get)(?: down)? (?P<title>.+?) "
    rf"(?:down )?(?:to|on|onto|in|into) {_MY_LIST}(?:,? for me)?",
    rf"(?:add|save|record|put|note|log|create|enter)(?: down)? (?P<title>.+?) (?:as|in as) (?:a|an|another)(?: new)? "
    rf"{_NOUN}(?: (?:on|to|in) {_MY_LIST})?",
    r"i (?:need|want|would like)(?: to have)? (?:a|an|another)(?: new)? (?:to-?do|to do|task)"
    r"(?: (?:for me )?to (?P<task>.+)|: (?P<title>.+))",
    rf"(?:new |another )?{_NOUN}\s*:\s*(?P<title>.+)",
    r"note to self\s*:\s*(?P<title>.+)",
    r"(?:remind me|(?:set|create|make|add)(?: me)? a reminder|i (?:need|want) a reminder)"
    r"(?:(?: that i (?:have|need))? to (?P<task>.+)| about (?P<title>.+))",
    r"don't let me forget(?:(?: that i (?:have|need))? to (?P<task>.+)| about (?P<title>.+))",
    r"(?:make sure|see to it)(?: that)? i (?:remember|don't forget) to (?P<task>.+)",
    r"(?:remember that i (?:have|need) to|remember for me to) (?P<task>.+)",
)
_ANOTHER = _compile(
    rf"(?:add )?(?:another|one more|(?:a|one)(?: (?:second|third|new|more))? (?:one|{_NOUN})|one)(?: one| {_NOUN})?"
    r"(?: to (?P<task>.+)|: (?P<title>.+))",
)
_SHOW = (
    r"(?:show|list|display|view|see|get|give|fetch|read|read out|print|check|pull up|bring up|tell|look at|"
    r"have a look at|retrieve|print out)"
)
_LIST = _compile(
    rf"{_SHOW}(?: out)? (?:me )?(?:all )?(?:of )?(?:{_MINE} )?(?:whole |full |entire )?(?:{_STATE} )?{_ITEMS}"
    r"(?: (?:i have|that i have|i've got))?",
    rf"{_SHOW}(?: out)? (?:me )?{_MINE} complete (?:(?:to-?do|to do|task) )?list",
    rf"{_SHOW}(?: me)? (?:a|the) (?:full |complete )?list of (?:all )?(?:of )?my (?:{_STATE} )?(?:to-?dos|tasks)",
    rf"{_SHOW}(?: me)? (?:everything|all|what's|what is|all that's|all that is)(?: that's| that is)? (?:on|in) {_MINE} {_LISTS}",
    rf"{_SHOW}(?: me)? (?:what|which|how many) (?:(?P<state>open|pending|completed|finished) )?(?:to-?dos|tasks) (?:i have|i've got)",
    rf"what(?:'s| is| do i have| have i got)(?: currently| now)? (?:on|in) (?:my|the) {_LISTS}",
    rf"what(?:'s| is| are)(?: all)? (?:my|the) (?:{_STATE} )?{_ITEMS}",
    rf"(?:what|which|how many)(?: {_STATE})? (?:to-?dos|to dos|tasks)(?: do i have| have i got| are there| are on {_MINE} {_LISTS})"
    r"(?P<open>(?: left| open| pending| remaining| to do| still open)+)?",
    r"(?P<open>what(?:'s| is) (?:left|still open)(?: to do)? on my (?:to-?do |to do |task )?list)",
    rf"(?:do i have|have i got|are there)(?: any)?(?: {_STATE})? (?:to-?dos|tasks)(?: on my list)?",
    r"(?P<open>what (?:do i (?:still )?have|have i(?: still)? got)(?: left)? to do)",
    rf"(?:which|what)(?: of)?(?: my)? (?:to-?dos|tasks)(?: are|'re) (?:still )?{_STATE}",
)
_ALONE = _compile(rf"(?:all )?(?:of )?(?:(?:my|the) )?(?:{_STATE} )?{_ITEMS}")
"""A list that nobody asks to show: by itself it is clear, behind other words it may be a part of theirs."""
_ERRAND = re.compile(r"(?!show|list|display|print|tell|give|what|which|how)\w+(?! me\b)", re.IGNORECASE)
_THE_TODO = r"(?:(?:the |my )?(?:to-?do|to do|task|todo item|item)(?: (?:called|named|titled|to)|:)? )?"
_COMPLETE = _compile(
    rf"(?:mark|set|flag) {_THE_TODO}(?P<title>.+?)(?: (?:as|to))? (?:done|complete|completed|finished)(?: (?:on|in) {_MY_LIST})?",
    rf"(?:check|tick|cross|strike) off {_THE_TODO}(?P<title>.+)",
    rf"(?:check|tick|cross|strike) {_THE_TODO}(?P<title>.+?) off(?: {_MY_LIST})?",
    rf"complete {_THE_TODO}(?P<title>.+)",
    r"(?:finish|close) (?:the |my )(?:to-?do|task)(?: (?:called|named|titled|to)|:)? (?P<title>.+)",
    r"i(?:'ve| have) (?:finished|completed) (?:the |my )(?:to-?do|task)(?: (?:called|named|titled|to)|:)? (?P<title>.+)",
)
_DELETE = _compile(
    rf"(?:delete|remove|erase|drop|take) {_THE_TODO}(?P<title>.+?) (?:from|off)(?: of)? {_MY_LIST}",
    rf"(?:delete|remove|erase|get rid of|discard) {_THE_TODO}(?P<title>.+)",
    r"(?:cancel|drop) (?:the |my )(?:to-?do|task)(?: (?:called|named|titled|to)|:)? (?P<title>.+)",
)
_UPDATE = _compile(
    rf"(?:rename|retitle) {_THE_TODO}(?P<title>.+?) (?:to|as|into)(?: say)?:? (?P<new>.+)",
    rf"(?:change|update|edit) (?:the title of )?{_THE_TODO}(?P<title>.+?) (?:to|into)(?: say| read)?:? (?P<new>.+)",
)
_REOPEN = _compile(
    rf"(?:reopen|re-open|uncheck) {_THE_TODO}(?P<title>.+)",
    rf"mark {_THE_TODO}(?P<title>.+?) as (?:not done|not finished|not complete|undone|open|incomplete|unfinished)(?: again)?",
)

_PRONOUNS = frozenset(("it", "that", "this", "that one", "this one", "the new one", "that todo", "that task"))
_NEGATED = re.compile(r"\b(?:not|never|no longer|un\w*|\w+n['\u2019]t)\b|\bas$", re.IGNORECASE)
_SEVERAL = re.compile(
    r"(?:all|everything|every|each|both|any|some|the (?:first|second|third|last|next|other|oldest|newest|latest)|first|last|"
    r"#?\d+|(?:number|no\.|item|task|todo)\s*#?\d+|them|those|these|my|mine)\b.*",
    re.IGNORECASE,
)


def read_todo(clause: str, quotes: list[str], before: Before) -> TodoAction | None:
    """What a clause asks of the todo list; None if it is not about it.

    Args:
        clause: the text; quoted passages stand as marks that number `quotes`.
        quotes: the quoted passages, with their marks.
        before: what stands before it in the same message.

    Raises:
        NotUnderstood: it is about the list, but not in a way that can be done as it is said.
    """
    text = clause.strip()
    match = _LEAD.match(text)
    lead = match[0] if match else ""
    text = text[len(lead) :]
    question = text.endswith("?")
    listed = _listed(_LIST_TAIL.sub("", text), before)
    if listed is not None:
        return listed
    text = _TAIL.sub("", text)
    if _MAY_I.search(lead) or (question and not lead):
        return None  # "Add a todo?" and "Can I add a todo?" ask; "Could you add a todo?" orders
    match = _first(_ADD, text) or (_first(_ANOTHER, text) if before.added else None)
    chosen = None if _ABOUT_ME.search(lead) else _chosen(text, quotes, before)
    if chosen is not None:
        return chosen  # "I need to complete the report" is no order
    return None if match is None else _added(match.groupdict(), quotes)


def _listed(text: str, before: Before) -> TodoAction | None:
    match = _first(_LIST, text) or (None if before.anything else _first(_ALONE, text))
    if match is None and before.added and _first(_ON_IT, text):
        return TodoAction({"action": "list", "filter": "all"})
    if match is None:
        return None
    if before.open_ended and _ERRAND.match(text):
        raise NotUnderstood("it is not clear where the todo's title ends; put the title in quotes")
    return TodoAction({"action": "list", "filter": _filter(match)})


def _chosen(text: str, quotes: list[str], before: Before) -> TodoAction | None:
    """To complete, reopen, rename or delete a todo."""
    for action, patterns, changes in (
        ("update", _REOPEN, {"done": False}),
        ("complete", _COMPLETE, {}),
        ("delete", _DELETE, {}),
    ):
        match = _first(patterns, text)
        if match is not None:
            return _selected(action, match["title"], quotes, before, **changes)
    match = _first(_UPDATE, text)
    if match is None:
        return None
    if f"{match['title']} {match['new']}".count(" to ") > 0:
        raise NotUnderstood("it is not clear where the old title ends; put both titles in quotes")
    return _selected("update", match["title"], quotes, before, new_title=read_title(match["new"], quotes))


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> re.Match[str] | None:
    for pattern in patterns:
        match = pattern.fullmatch(text)
        if match is not None:
            return match
    return None


def _filter(match: re.Match[str]) -> str:
    groups = match.groupdict()
    if groups.get("open"):
        return "open"
    state = (groups.get("state") or "").lower()
    if not state:
        return "all"
    return "done" if state in _DONE else "open"


def _added(groups: dict[str, str | None], quotes: list[str]) -> TodoAction:
    task = groups.get("task")
    text = (task or groups.get("title") or "").strip()
    title = read_title(text, quotes, infinitive=task is not None)
    return TodoAction({"action": "add", "title": title}, bare=MARKED.fullmatch(text) is None)


def _selected(action: str, text: str, quotes: list[str], before: Before, **changes: Any) -> TodoAction:
    text = text.strip()
    if text.lower() in _PRONOUNS:
        if not before.one_added:
            raise NotUnderstood("it does not say which todo; name it by its title")
        return TodoAction({"action": action, **changes}, of_last=True)
    bare = MARKED.fullmatch(text) is None
    if bare and (_SEVERAL.fullmatch(text) or _NEGATED.search(text)):
        raise NotUnderstood("it does not name one todo; use its title, in quotes if need be")
    if bare and before.open_ended:
        raise NotUnderstood("it is not clear where the first todo's title ends; put the titles in quotes")
    return TodoAction({"action": action, "title": read_title(text, quotes), **changes}, bare=bare)
