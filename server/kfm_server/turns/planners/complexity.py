"""How complex a message is, 0 to 100: what the router of `hybrid` goes by. Pure, and rough on purpose."""

import re
from collections.abc import Iterable

from kfm.type.v1 import type_pb2 as types

_CLAUSES = re.compile(
    r"[.;?!\n]+|,?\s\b(?:and|then|but|or|after|before|unless|while|because|if)\b", re.IGNORECASE
)
_HARD = re.compile(
    r"\b(?:analy[sz]e|compare|design|derive|explain|investigate|optimi[sz]e|plan|prove|refactor|research|summari[sz]e|why)\b",
    re.IGNORECASE,
)


def message_complexity(parts: Iterable[types.Part]) -> int:
    """Longer messages, more clauses, words that ask for thought, and data make it more complex."""
    score = 0.0
    for part in parts:
        if part.WhichOneof("content") == "data_json":
            score += 10 + len(part.data_json) / 400
            continue
        text = part.text[:20_000]
        clauses = sum(1 for clause in _CLAUSES.split(text) if clause.strip())
        score += len(text.split()) / 4 + 6 * max(0, clauses - 1) + 12 * len(_HARD.findall(text))
    return min(100, round(score))
