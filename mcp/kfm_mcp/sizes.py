"""Answers that fit: hosts warn at 10 000 tokens of a tool's answer and cut at 25 000, without saying where."""

from typing import Any

from kfm_mcp.arguments import compact

CONCISE_TOKENS = 2_000
"""Tokens of one text in a concise answer."""
FULL_TOKENS = 5_000
"""Tokens of one text in a full answer. It goes out twice, as structured content, where quotes double it, and as text."""
_DEEPEST = 5
_SHORTER = ((4_000, 200), (1_000, 100), (250, 50), (60, 20), (20, 5), (8, 1))


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


def fit(value: dict[str, Any], most: int) -> tuple[dict[str, Any], bool]:
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


def _shorten(value: Any, longest: int, items: int, depth: int = 0) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}… [{len(value)} characters]"
    if isinstance(value, list | dict) and depth > _DEEPEST:
        return "…" if isinstance(value, list) else {}
    if isinstance(value, list):
        return [_shorten(one, longest, items, depth + 1) for one in value[:items]]
    if isinstance(value, dict):
        return {
            key: _shorten(one, longest, items, depth + 1) for key, one in list(value.items())[: items * 4]
        }
    return value
