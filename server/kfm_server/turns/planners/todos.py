"""One clause about the speaker's own todo list, read into arguments of `todo_store`. All of it, or nothing."""

import re
from dataclasses import dataclass, field
from typing import Any

MAX_TITLE = 500


class NotUnderstood(Exception):
    """The clause is about todos but cannot be taken at its word; the message says why."""


@dataclass(frozen=True, slots=True)
class TodoAction:
    """Arguments of `todo_store`. `of_last`: they mean the todo that was added before in the same message."""

    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    of_last: bool = False


_LEAD = re.compile(
    r"(?:(?:hey|hi|hello|ok|okay|please|kindly|now|also|and|then|first|firstly|next|finally|lastly|afterwards|after that|"
    r"kfm|just|so|go ahead and|let's|help me(?: to)?|i'd like(?: you)? to|i would like(?: you)? to|"
    r"i (?:want|need)(?: you)? to|(?:can|could|would|will) you|(?:can|could|may) i|let me)[\s,:]+)+",
    re.IGNORECASE,
)
_TAIL = re.compile(r"(?:[\s,]+(?:please|thanks|thank you|for me|if you can))*[\s.!?]*$", re.IGNORECASE)
_LIST_TAIL = re.compile(
    r"(?:[\s,]+(?:please|thanks|thank you|for me|now|right now|again|too|as well|so far|at the moment|currently))*[\s.!?]*$",
    re.IGNORECASE,
)

_MARKED = re.compile("\ue000(\\d+)\ue001")
_NOUN = r"(?:to-?dos?|to do|tasks?|reminder)(?: items?)?"
_LISTS = r"(?:(?:to-?do|to do|task|todos|tasks)s? lists?|lists? of (?:to-?dos|tasks|things to do)|to-?dos|tasks|list)"
_MINE = r"(?:my|the|our own)"
_MY_LIST = rf"(?:(?:{_MINE} )?{_LISTS})"
_STATE = r"(?P<state>open|pending|outstanding|remaining|unfinished|incomplete|current|active|completed?|finished|done)"
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
_ADD = _compile(
    rf"{_MAKE}(?: me)?(?: (?:a|an|another|one(?: more)?))?(?: new)? {_NOUN}(?: for me)?"
    rf"(?: (?:on|to|in|into|onto|for) {_MY_LIST})?"
    r"(?:\s*[:\-\u2013]\s*|,? (?:to|called|named|titled|entitled|saying|that says|which says|that reads|about|with the title)\s*:?\s+)"
    r"(?P<title>.+)",
    rf"{_MAKE}(?: me)?(?: (?:a|an|another|one(?: more)?))?(?: new)? {_NOUN}(?: for me)? (?P<title>\ue000\d+\ue001)",
    rf"{_MAKE}(?: (?:a|an|another))?(?: new)? {_NOUN} for (?P<title>(?:\w+ing|the|my|some) .+)",
    rf"(?:add|put|place|stick|include|append|write|jot|note|throw|get)(?: down)? (?P<joint>.+?) "
    rf"(?:down )?(?:to|on|onto|in|into) {_MY_LIST}",
    rf"(?:add|save|record|put|note|log|create|enter)(?: down)? (?P<joint>.+?) (?:as|in as) (?:a|an|another)(?: new)? "
    rf"{_NOUN}(?: (?:on|to|in) {_MY_LIST})?",
    r"i (?:need|want|would like)(?: to have)? (?:a|an|another)(?: new)? (?:to-?do|to do|task)(?: to|:| for me to) (?P<title>.+)",
    rf"(?:new |another )?{_NOUN}\s*:\s*(?P<title>.+)",
    r"note to self\s*:\s*(?P<title>.+)",
    r"(?:remind me|(?:set|create|make|add)(?: me)? a reminder|i (?:need|want) a reminder)(?: that i (?:have|need) to| to| about)"
    r" (?P<remind>.+)",
    r"don't let me forget(?: that i (?:have|need) to| to| about)? (?P<remind>.+)",
    r"(?:make sure|see to it)(?: that)? i (?:remember|don't forget) to (?P<remind>.+)",
    r"(?:remember that i (?:have|need) to|remember for me to) (?P<remind>.+)",
)
_ANOTHER = _compile(
    rf"(?:add )?another(?: one| {_NOUN})?(?: to|:| for) (?P<title>.+)",
    r"(?:a|one) (?:second|third) one to (?P<title>.+)",
)
_SHOW = (
    r"(?:show|list|display|view|see|get|give|fetch|read|read out|print|check|pull up|bring up|tell|open|look at|"
    r"have a look at|retrieve|print out)"
)
_LIST = _compile(
    rf"(?:{_SHOW}(?: out)? (?:me )?)?(?:all )?(?:of )?(?:{_MINE} )?(?:whole |full |entire |complete )?(?:{_STATE} )?{_ITEMS}"
    r"(?P<state2> (?:i have|that i have|i've got))?",
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
_EMPTY_WORDS = frozenset(
    [
        "it",
        "that",
        "this",
        "these",
        "those",
        "them",
        "something",
        "anything",
        "everything",
        "one",
        "ones",
        "some",
        "stuff",
        "all",
        "a",
        "an",
        "the",
        "my",
        "new",
        "another",
        "two",
        "three",
        "four",
        "five",
        "few",
        "several",
        "many",
        "more",
        "of",
        "last",
        "first",
        "second",
        "next",
        "todo",
        "todos",
        "to-do",
        "to-dos",
        "task",
        "tasks",
        "item",
        "items",
        "thing",
        "things",
        "reminder",
        "reminders",
        "list",
        "lists",
    ]
)
_SOMEONES = re.compile(
    r"(?:(?:my|the|a|his|her|their|our|your|\w+['\u2019]s)\s+)(?:[\w-]+\s+)*(?:lists?|todos?|to-dos?|tasks?|calendar|agenda|notebook|board)",
    re.IGNORECASE,
)
_TURN = re.compile(
    r"\b(?:but|unless|except|instead|rather than|scratch that|never\s?mind|actually|if|don['\u2019]t|do not|without)\b|\?",
    re.IGNORECASE,
)
_ORDER = re.compile(
    r"(?:,|;|\band|\bplus|&)\s+(?:(?:please|also|then|now)\s+)*(?:(?:show|tell|give|send|read|email|text|message|remind|let)\s+"
    r"(?:me|us)\b|(?:list|display|what|what's|how|which|who|when|why|where|add|delete|remove|mark|complete|rename|create|"
    r"calculate|compute|show)\b|(?:can|could|would|will) you\b)",
    re.IGNORECASE,
)
_RECURRING = re.compile(
    r"\b(?:every|each)\s+(?:\w+\s+)?(?:day|week|month|year|hour|morning|evening|night|(?:mon|tues|wednes|thurs|fri|satur|sun)day)s?\b"
    r"|\b(?:daily|weekly|monthly|yearly|hourly)\b|\bdue\b|\b\d{1,2}[/.]\d{1,2}(?:[/.]\d{2,4})?\b",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"\b(?:today|tomorrow|tonight|(?:this|next)\s+\w+|(?:mon|tues|wednes|thurs|fri|satur|sun)day|at\s+(?:\d|noon|midnight|\w+\s+"
    r"o['\u2019]clock)|in\s+(?:\w+\s+)+(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?)|\d{1,2}\s?(?:am|pm)|\d{1,2}:\d\d|"
    r"later|soon|when|before|after|once|until|on\s+the\s+\d|jan(?:uary)?|feb(?:ruary)?|april|june|july|aug(?:ust)?|"
    r"sept(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|morning|afternoon|evening)\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|never|no longer|un\w*|\w+n['\u2019]t)\b|\bas$", re.IGNORECASE)
_SEVERAL = re.compile(
    r"(?:all|everything|every|each|both|any|some|the (?:first|second|third|last|next|other|oldest|newest|latest)|first|last|"
    r"#?\d+|(?:number|no\.|item|task|todo)\s*#?\d+|them|those|these|my|mine)\b.*",
    re.IGNORECASE,
)


def read_todo(clause: str, quotes: list[str], *, after_add: bool = False) -> TodoAction | None:
    """What a clause asks of the todo list; None if it is not about it.

    Args:
        clause: the text; quoted passages stand as marks that number `quotes`.
        quotes: the quoted passages.
        after_add: an earlier clause added a todo, so that "it" and "another" mean something.

    Raises:
        NotUnderstood: it is about the list, but not in a way that can be done as it is said.
    """
    text = clause.strip()
    lead = _LEAD.match(text)
    if lead:
        text = text[lead.end() :]
    question = text.rstrip().endswith("?")
    listed = _first(_LIST, _LIST_TAIL.sub("", text))
    if listed is None and after_add and _first(_ON_IT, _LIST_TAIL.sub("", text)):
        return TodoAction({"action": "list", "filter": "all"})
    if listed is not None:
        return TodoAction({"action": "list", "filter": _filter(listed)})
    text = _TAIL.sub("", text)
    if question and not lead:
        return None  # "Add a todo?" asks; "Could you add a todo?" orders
    match = _first(_REOPEN, text)
    if match is not None:
        return _selected("update", match["title"], quotes, after_add, done=False)
    for action, patterns in (("complete", _COMPLETE), ("delete", _DELETE)):
        match = _first(patterns, text)
        if match is not None:
            return _selected(action, match["title"], quotes, after_add)
    match = _first(_UPDATE, text)
    if match is not None:
        if f"{match['title']} {match['new']}".count(" to ") > 0:
            raise NotUnderstood("it is not clear where the old title ends; put both titles in quotes")
        return _selected("update", match["title"], quotes, after_add, new_title=_title(match["new"], quotes))
    match = _first(_ADD, text) or (_first(_ANOTHER, text) if after_add else None)
    return None if match is None else _added(match.groupdict(), quotes)


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
    joint, remind = groups.get("joint"), groups.get("remind")
    text = joint or remind or groups.get("title") or ""
    if remind and _TIME.search(remind):
        raise NotUnderstood(
            "a reminder at a certain time cannot be set here; a todo without a time can be added"
        )
    if joint and ("," in joint or len(_MARKED.findall(joint)) > 1):
        raise NotUnderstood("it is not clear whether that is one todo or several; add them one by one")
    if joint:
        halves = re.split(r"\s+(?:and|&)\s+", joint)
        if len(halves) > 1 and any(len(half.split()) > 1 for half in halves):
            raise NotUnderstood("it is not clear whether that is one todo or several; add them one by one")
    if _RECURRING.search(_MARKED.sub("", text)):
        raise NotUnderstood(
            "todos here have no dates and do not recur; say only what is to be done, or quote the title"
        )
    return TodoAction({"action": "add", "title": _title(text, quotes)})


def _title(text: str, quotes: list[str]) -> str:
    text = text.strip().rstrip(".!, ")
    whole = _MARKED.fullmatch(text)
    if whole is not None:
        title = quotes[int(whole[1])].strip()
    else:
        bare = _MARKED.sub("", text)
        if _TURN.search(bare) or _ORDER.search(bare):
            raise NotUnderstood("it is not clear where the todo's title ends; put the title in quotes")
        if _EMPTY_WORDS.issuperset(bare.lower().split()) and not _MARKED.search(text):
            raise NotUnderstood(
                "it does not say what the todo is; name it, for example: add a todo to buy milk"
            )
        if _SOMEONES.fullmatch(bare.strip()) or re.search(r"\b(?:to|on) \w+['\u2019]s (?:\w+ )?list$", bare):
            raise NotUnderstood("only your own todo list is kept here")
        title = _MARKED.sub(lambda match: f'"{quotes[int(match[1])]}"', text)
    if not 0 < len(title) <= MAX_TITLE or not any(letter.isalnum() for letter in title):
        raise NotUnderstood(f"a todo's title has 1 to {MAX_TITLE} characters, one of them a letter or digit")
    return title


def _selected(action: str, text: str, quotes: list[str], after_add: bool, **changes: Any) -> TodoAction:
    text = text.strip()
    if text.lower() in _PRONOUNS:
        if not after_add:
            raise NotUnderstood("it does not say which todo; name it by its title")
        return TodoAction({"action": action, **changes}, of_last=True)
    if not _MARKED.fullmatch(text) and (_SEVERAL.fullmatch(text) or _NEGATED.search(text)):
        raise NotUnderstood("it does not name one todo; use its title, in quotes if need be")
    return TodoAction({"action": action, "title": _title(text, quotes), **changes})
