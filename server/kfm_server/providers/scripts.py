"""Scripts: what a model answers, as a JSON document. For tests, demonstrations and the development server.

A script is a list of rules; the first whose conditions all hold answers. The choice looks only at the call itself
(its messages, tools and schema), so that a retried call gets the same reply. The one exception is a failure with
`first`: it fails so many calls and then lets the reply through (`player.py` counts).

    {"rules": [{"user": "compute (?P<sum>.+)", "step": 0,
                "reply": {"tools": [{"name": "calculator", "arguments": {"expression": "{{sum}}"}}]}},
               {"step": 1, "reply": {"text": "It is {{results}}."}},
               {"failure": {"kind": "status", "status": 429, "retry_after": "2", "first": 1},
                "reply": {"text": "You said {{last_user}}."}}]}
"""

import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args, get_type_hints

FailureKind = Literal[
    "status",
    "context_overflow",
    "content_filter",
    "cut",
    "stall",
    "error_event",
    "bad_json",
    "wrong_type",
    "empty",
]
_MIDWAY: Final = ("cut", "stall", "error_event", "bad_json", "empty")
"""What may go wrong in the middle of a stream."""
MAX_SCRIPT_BYTES: Final = 4 * 1024 * 1024
"""Largest script."""
DEMO: Final = "demo"
"""Name of the built-in script."""
_PLAIN: Final[Mapping[type, str]] = {str: "text", int: "a number of at least 0", bool: "true or false"}


class ScriptInvalid(ValueError):
    """A script that cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class ScriptedTool:
    """A tool call of a reply.

    arguments: a JSON value whose strings are templates; raw: the argument text as it is, instead; id: None lets the
    player make one.
    """

    name: str
    arguments: Any = None
    raw: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """What a rule answers. text, reasoning and refusal are templates: `{{last_user}}`, `{{last_tool}}`, `{{results}}`
    (what all tools said since the last user's message, or is listed in it), `{{model}}`, and the named groups of the rule's conditions.

    json: a value instead of text; fit_schema: the smallest document that fits the schema asked for, instead of text;
    repeat: how many times the text is said; finish: of the wire (`stop`, `length`, `tool_calls`, `content_filter`),
    empty derives it; input_tokens and output_tokens: None estimates them; usage: whether it is reported at all;
    chunk_chars: size of a chunk when streamed; chunks: their number instead; delay_ms: before each chunk;
    dimensions: of an embedding.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    json: Any = None
    fit_schema: bool = False
    tools: tuple[ScriptedTool, ...] = ()
    finish: str = ""
    repeat: int = 1
    input_tokens: int | None = None
    output_tokens: int | None = None
    usage: bool = True
    chunk_chars: int = 8
    chunks: int = 0
    delay_ms: int = 0
    dimensions: int = 8


@dataclass(frozen=True, slots=True)
class ScriptedFailure:
    """How a rule fails.

    kind: `status` (an HTTP status with an error envelope), `context_overflow` and `content_filter` (the status and code for it), `cut`
    (the connection ends within a chunk), `stall` (silence until the caller leaves), `error_event` (an error in the
    middle of a stream), `bad_json`, `wrong_type` (a page of HTML), `empty`. after_chunks: chunks of the reply sent
    before (a stall before any chunk holds back even the headers); first: only so many calls fail, 0 is all;
    retry_after: the header as it is sent, seconds or a date.
    """

    kind: FailureKind
    status: int = 500
    code: str = ""
    message: str = "The script says so."
    retry_after: str = ""
    after_chunks: int = 0
    first: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions and an answer. Conditions left out hold; expressions are searched, without regard to case.

    user: the last user's message; system: the first system message; tool: the last tool result since then; model: its
    name; offers: a tool that the call offers; step: assistant's messages since the last user's; schema: whether a
    JSON schema is asked for; call: `chat` or `embed`.
    """

    user: re.Pattern[str] | None = None
    system: re.Pattern[str] | None = None
    tool: re.Pattern[str] | None = None
    model: re.Pattern[str] | None = None
    offers: str = ""
    step: int | None = None
    schema: bool | None = None
    call: Literal["chat", "embed"] = "chat"
    reply: ScriptedReply | None = None
    failure: ScriptedFailure | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """Rules, the first that fits answers."""

    rules: tuple[Rule, ...]


def load_script(name: str) -> Script:
    """The script of a file, or the built-in `demo`. Raises ScriptInvalid."""
    path = Path(__file__).with_name("demo_script.json") if name == DEMO else Path(name)
    try:
        if path.stat().st_size > MAX_SCRIPT_BYTES:
            raise ScriptInvalid(f"{name} is larger than {MAX_SCRIPT_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScriptInvalid(
            f"the script {name} cannot be read: {error.strerror}; the built-in one is {DEMO!r}"
        ) from None
    except ValueError as error:
        raise ScriptInvalid(f"{name} is no JSON: {error}") from None
    except RecursionError:
        raise ScriptInvalid(f"{name} is nested too deep") from None
    try:
        return parse_script(document)
    except ScriptInvalid as error:
        raise ScriptInvalid(f"{name}: {error}") from None


def parse_script(document: Any) -> Script:
    """A script of a JSON value. Raises ScriptInvalid."""
    top = _object(document, "script", {"rules"})
    rules = _list(top.get("rules"), "rules")
    return Script(tuple(_rule(raw, f"rules[{i}]") for i, raw in enumerate(rules)))


def _rule(raw: Any, place: str) -> Rule:
    given = _fields(raw, place, Rule)
    try:
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        lone = ord(error.object[error.start])
        raise ScriptInvalid(f"{place} holds \\u{lone:04x}, half of a surrogate pair: no text") from None
    for name in ("user", "system", "tool", "model"):
        if name in given:
            given[name] = _pattern(given[name], f"{place}.{name}")
    if "reply" in given:
        given["reply"] = _reply(given["reply"], f"{place}.reply")
    if "failure" in given:
        given["failure"] = _failure(given["failure"], f"{place}.failure")
    if given.get("call", "chat") not in ("chat", "embed"):
        raise ScriptInvalid(f"{place}.call is neither chat nor embed")
    rule = Rule(**given)
    if rule.reply is None and rule.failure is None:
        raise ScriptInvalid(f"{place} has neither a reply nor a failure")
    if rule.reply is None and rule.failure is not None and (rule.failure.first or rule.failure.after_chunks):
        raise ScriptInvalid(f"{place} has a failure that comes after or before a reply, and no reply")
    return rule


def _reply(raw: Any, place: str) -> ScriptedReply:
    given = _fields(raw, place, ScriptedReply)
    given["tools"] = tuple(
        _tool(one, f"{place}.tools[{i}]")
        for i, one in enumerate(_list(given.get("tools", []), f"{place}.tools"))
    )
    if given.get("chunk_chars") == 0 or given.get("dimensions") == 0:
        raise ScriptInvalid(f"{place}: chunk_chars and dimensions are at least 1")
    return ScriptedReply(**given)


def _tool(raw: Any, place: str) -> ScriptedTool:
    given = _fields(raw, place, ScriptedTool)
    if "name" not in given:
        raise ScriptInvalid(f"{place} has no name")
    return ScriptedTool(**given)


def _failure(raw: Any, place: str) -> ScriptedFailure:
    given = _fields(raw, place, ScriptedFailure)
    kinds = get_args(FailureKind)
    if given.get("kind") not in kinds:
        raise ScriptInvalid(f"{place}.kind is none of {', '.join(kinds)}")
    if not 300 <= given.get("status", 500) <= 599:
        raise ScriptInvalid(f"{place}.status is no status of a failure: 300 to 599")
    failure = ScriptedFailure(**given)
    if failure.after_chunks and failure.kind not in _MIDWAY:
        raise ScriptInvalid(f"{place}: after_chunks goes with {', '.join(_MIDWAY)}")
    return failure


def _fields(raw: Any, place: str, kind: type) -> dict[str, Any]:
    """An object with the fields of `kind`; those that are texts, numbers or flags there are so here."""
    hints = get_type_hints(kind)
    given = dict(_object(raw, place, hints.keys()))
    for name, value in given.items():
        for plain in _PLAIN.keys() & {hints[name], *get_args(hints[name])}:
            if type(value) is not plain or (isinstance(value, int) and value < 0):
                raise ScriptInvalid(f"{place}.{name} is not {_PLAIN[plain]}")
    return given


def _object(raw: Any, place: str, known: Set[str]) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise ScriptInvalid(f"{place} is no JSON object")
    found = cast("dict[str, Any]", raw)
    if unknown := sorted(found.keys() - known):
        raise ScriptInvalid(
            f"{place} has the unknown key {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    return found


def _list(raw: Any, place: str) -> list[Any]:
    if not isinstance(raw, list):
        raise ScriptInvalid(f"{place} is no list")
    return cast("list[Any]", raw)


def _pattern(raw: Any, place: str) -> re.Pattern[str]:
    try:
        return re.compile(raw, re.IGNORECASE | re.DOTALL)
    except (re.error, TypeError) as error:
        raise ScriptInvalid(f"{place} is no regular expression: {error}") from None
