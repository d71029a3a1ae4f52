"""Answers that fit: hosts warn at 10 000 tokens of a tool's answer and cut at 25 000, without saying where."""

from typing import Any

from kfm_mcp.arguments import compact

CONCISE_TOKENS = 2_000
"""Tokens of one text in a concise answer."""
FULL_TOKENS = 8_000
"""Tokens of one text in a full answer. It goes out twice: as structured content and as text."""
ANSWER_TOKENS = 11_000
"""Tokens of the structured content of one answer; with the text beside it, it stays below 25 000."""
_SHORTER = ((4_000, 200), (1_000, 100), (250, 50), (60, 20), (20, 5))


def tokens(text: str) -> int:
    """At least the tokens of a text: three ASCII characters make one, another character may be one."""
    other = len(text) - len(text.encode("ascii", "ignore"))
    return (len(text) - other) // 3 + other + 1


def cut(text: str, most: int) -> str:
    """The beginning of a text that has at most so many tokens."""
    if len(text) <= most or tokens(text) <= most:
        return text
    spent = 0
    for index, character in enumerate(text):
        spent += 1 if character < "\x80" else 3
        if spent > most * 3:
            return text[:index]
    return text


def fit(value: dict[str, Any], most: int = ANSWER_TOKENS) -> tuple[dict[str, Any], bool]:
    """The value with long texts and lists cut until it has at most so many tokens, and whether anything was cut."""
    if tokens(compact(value)) <= most:
        return value, False
    for longest, items in _SHORTER:
        shorter = _shorten(value, longest, items)
        if tokens(compact(shorter)) <= most:
            break
    else:
        shorter = {}
    return shorter, True


def _shorten(value: Any, longest: int, items: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}… [{len(value)} characters]"
    if isinstance(value, list):
        return [_shorten(one, longest, items) for one in value[:items]]
    if isinstance(value, dict):
        return {key: _shorten(one, longest, items) for key, one in list(value.items())[:items]}
    return value
