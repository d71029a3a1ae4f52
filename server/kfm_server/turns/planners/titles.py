"""Which words are surely a todo's title. Quoted, anything; unquoted, a plain phrase in a small grammar."""

import re

MAX_TITLE = 500
_MAX_WORDS = 12


class NotUnderstood(Exception):
    """The clause is about todos but cannot be taken at its word; the message says why."""


MARKED = re.compile("\ue000(\\d+)\ue001")
_QUOTE_IT = 'put the title in quotes, for example: add a todo "buy milk and bread"'
_NO_DATES = (
    "todos here have no dates, times, reminders, priorities or other marks; say only what is to be done, "
    'or quote the title, for example: add a todo "pay rent by Friday"'
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"(?:dr|mr|mrs|ms|st)\.|[^\W_]+(?:['\u2019\-][^\W_]+)*['\u2019]?", re.IGNORECASE)

# Verbs that an unquoted "todo to ..." may start with: "a todo to Anna" has none, "a todo to not buy milk" neither.
_VERBS = _words(
    "accept analyse analyze apply approve arrange ask assemble attend back bake book borrow bring brush build buy call "
    "cancel change charge check choose clean clear collect compare complete configure confirm contact cook copy create "
    "cut debug decide decorate deliver deploy design discuss do donate download draft draw drink drive drop eat email "
    "empty exchange exercise explore feed fetch fill finalize find finish fix fold follow get give go grade greet grow "
    "hang help hire hold install invite invoice iron join learn lock look mail make meet mend merge message mop mow "
    "negotiate notify open order organise organize pack paint park pay phone pick plan plant polish post practice "
    "practise prepare present print process publish pull purchase push reach read rebook recycle refactor refill "
    "register release renew rent repair repay replace reply report request research reserve return review rewrite run "
    "save scan schedule search sell send service set settle setup sharpen ship shop shred sign sort speak start study "
    "submit sweep take talk teach test text thank throw tidy train translate transfer trim try tune turn update upgrade "
    "upload vacuum visit wake walk wash watch water weed wipe work wrap write"
)
_NUMBERS = _words(
    "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty sixty"
)
_STARTS = _words("a an the my our his some")
_JOINS = _STARTS | _words("for from to with of into up out off down away about")
_HERE = _words(
    # the list itself, its todos and their marks
    "todo todos to-do to-dos task tasks item items list lists reminder reminders calendar agenda notebook entry entries "
    "deadline deadlines priority priorities urgent important tag tags tagged label labels labeled labelled category "
    "categories subtask subtasks note notes comment comments description color colour status state assigned assignee "
    "marked flagged done completed finished incomplete unfinished pending open closed repeat repeating recurring "
    "high low top bottom pinned starred shared private public hidden p0 p1 p2 p3 following title titled name named called saying"
)
_TIMES = re.compile(
    r"(?:mon|tues?|wed|thur?s?|fri|sat|sun|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|january|february|march|april|"
    r"may|june|july|august|september|october|november|december|today|todays|tomorrow|tonight|yesterday|noon|midday|"
    r"mornings?|afternoons?|evenings?|nights?|midnight|nightly|now|past|presently|shortly|eventually|instantly|urgently|quickly|promptly|tmrw?|tomm?orr?ow|whenever|often|dawn|dusk|sunrise|sunset|spring|summer|"
    r"autumn|winter|christmas|easter|xmas|thanksgiving|halloween|fortnight|quarter|decade|century|semester|term|"
    r"season|date|dates|dated|due|eod|eow|cob|asap|immediately|soon|sooner|later|early|earlier|late|daily|annually|"
    r"quarterly|overnight|always|sometimes?|someday|repeatedly|regularly|frequently|periodically|usually|occasionally|\w*(?:week|month|hour|minute|second|year)(?:s|ly|end|ends)?|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?|days?|weekdays?|holidays?|\w+time|o['\u2019]clock|am|pm|"
    r"\d+(?:[ap]m|h|hrs?|min|mins|s|st|nd|rd|th|d)|at|by|on|in|when|before|after|afterwards|until|till|once|during|"
    r"while|whilst|since|every|each|ago|within)",
    re.IGNORECASE,
)
# Everything else that is no part of a phrase: what joins, corrects, negates, asks, points back or speaks to the reader.
_FUNCTION = _words(
    "and or nor but yet so plus minus also too as well besides additionally along alongside together both either "
    "neither another other others else next first firstly second third last lastly finally then than like such same "
    "if unless except instead rather without provided providing assuming supposing suppose given case granted whether "
    "though although because whereas despite considering long lest otherwise only even maybe perhaps probably possibly "
    "ideally preferably "
    "i me mine myself you your yours yourself he him she it its itself we us they them their theirs themselves one ones "
    "this that these those there here who whom whose which what whatever where why how many much more most less least "
    "few several any anything anyone nothing none something someone everything everyone everybody nobody all "
    "is are was were be been being am has have had having does did doing can could will would shall should might must "
    "need needs want wants let lets please thanks thanking sorry oops wait nope no not never yes yeah yep ok okay hmm er "
    "erm uh um oh hey hi hello nah lol haha jk kidding joking meant mean means actually really honestly correction "
    "correct scratch forget ignore undo disregard nevermind strike skip just again back twice thrice times "
    "display show showing shown list listing adding added delete deleting remove removing mark marking rename renaming "
    "result results answer answers sum total product outcome output difference quotient value amount number figure "
    "count digits under above below per via versus vs starting beginning using respectively separately "
    "upon separate equals psych whoops nvm cancel abort stop retract idk tbd tbh btw pls plz thx ty cheers lmao rofl "
    "fyi etc eg ie aka right straight already still almost nearly partly partially fully completely half quite barely hardly "
    "duplicate duplicates compute calculate evaluate multiply divide subtract"
)
_NOT = re.compile(r".*n['\u2019]t|.+['\u2019](?:ll|ve|re|d|m)", re.IGNORECASE)


def read_title(text: str, quotes: list[str], *, infinitive: bool = False) -> str:
    """The title that a text is. `infinitive`: it followed "to", so that it has to start with a verb.

    Raises:
        NotUnderstood: it may hold more than the title, or other than the title.
    """
    text = text.strip().rstrip(".!, ")
    whole = MARKED.fullmatch(text)
    title = _phrase(text, quotes, infinitive) if whole is None else quotes[int(whole[1])][1:-1].strip()
    if not 0 < len(title) <= MAX_TITLE or not any(letter.isalnum() for letter in title):
        raise NotUnderstood(f"a todo's title has 1 to {MAX_TITLE} characters, one of them a letter or digit")
    return title


def _parts(word: str) -> set[str]:
    """A word and what it is made of: it's, tomorrow's and mid-July are no better than it, tomorrow and July."""
    return {word, *filter(None, re.split("['\u2019-]", word))}


def _is_number(word: str) -> bool:
    return any(letter.isdigit() for letter in word) or not _NUMBERS.isdisjoint(_parts(word))


def _phrase(text: str, quotes: list[str], infinitive: bool) -> str:
    bare, mark, rest = text.partition("\ue000")
    if rest and MARKED.fullmatch(mark + rest) is None:
        raise NotUnderstood(f"it is not clear where the todo's title ends; {_QUOTE_IT}")
    words = bare.split()
    low = [word.lower() for word in words]
    content = [word for word in low if word not in _JOINS and not _is_number(word)]
    if not content or (len(low) == 1 and low[0] in _FUNCTION | _HERE):
        raise NotUnderstood("it does not say what the todo is; name it, for example: add a todo to buy milk")
    if infinitive and (low[0] not in _VERBS or (len(words) == 1 and not mark)):
        raise NotUnderstood(f"it is not clear that {words[0]!r} is what is to be done; {_QUOTE_IT}")
    for at, word in enumerate(low):
        following = low[at + 1] if at + 1 < len(low) else ""
        if at == 0 and word in _VERBS:
            continue
        parts = _parts(word)
        if any(_TIMES.fullmatch(part) for part in parts):
            raise NotUnderstood(f"of {words[at]!r}: {_NO_DATES}")
        if not _HERE.isdisjoint(parts):
            raise NotUnderstood(f"{words[at]!r} may be about the list rather than in the title; {_QUOTE_IT}")
        if not _WORD.fullmatch(word) or not _FUNCTION.isdisjoint(parts) or _NOT.fullmatch(word):
            raise NotUnderstood(
                f"it is not clear whether {words[at]!r} belongs to the todo's title; {_QUOTE_IT}"
            )
        if _is_number(word) and (not following or following in _JOINS):
            raise NotUnderstood(f"it is not clear what {words[at]!r} is; {_QUOTE_IT}")
    if low[0] in _JOINS - _STARTS:
        raise NotUnderstood(f"it is not clear where the todo's title starts; {_QUOTE_IT}")
    if low[-1] in _JOINS - {"up", "out", "off", "down", "away"} and not mark:
        raise NotUnderstood(f"the todo's title seems to go on behind {words[-1]!r}; {_QUOTE_IT}")
    if low.count("to") > 1 or len(words) > _MAX_WORDS:
        raise NotUnderstood(f"it is long for a title without quotes; {_QUOTE_IT}")
    return MARKED.sub(lambda match: quotes[int(match[1])], text)
