"""Several rankings as one: reciprocal rank fusion."""

from collections.abc import Sequence
from typing import Final

RANK_OFFSET: Final = 60
"""The higher, the less the first place of one ranking counts against two middling ones."""


def fused(*rankings: Sequence[str]) -> dict[str, float]:
    """Ids with the sum of 1 / (RANK_OFFSET + rank) over the rankings that have them, best first, ranks from 1."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, id in enumerate(ranking, start=1):
            scores[id] = scores.get(id, 0.0) + 1.0 / (RANK_OFFSET + rank)
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))
