"""The embedder that needs no model: words, pairs of words and parts of words, hashed. It is lexical.

It sees that two texts share words or parts of words, never that two words mean the same. It is deterministic across
processes and machines, needs no weights and no network.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from typing import Final

from kfm_server.ports.vectors import EmbedderIdentity, Vector

DIMS: Final = 384
IDENTITY: Final = EmbedderIdentity("hashing-lexical-1", DIMS)
"""Another way to hash is another identity."""
_GRAM = 4
_WORD_WEIGHT, _PAIR_WEIGHT, _GRAM_WEIGHT = 1.0, 0.5, 0.8
_WORD = re.compile(r"[^\W_]+")
_STOP_WORDS: Final = """
a an and are as at be by can do for from has have how i if in into is it its my no not of on or so that the
their then there this to was what when where which who why will with you your
"""
_STOP = frozenset(_STOP_WORDS.split())


class HashingEmbedder:
    """The port Embedder, by hashing. Lexical."""

    async def identity(self) -> EmbedderIdentity:
        """As the port says."""
        return IDENTITY

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """As the port says."""
        if len(texts) <= 2:
            return [hashed(text) for text in texts]
        return await asyncio.to_thread(lambda: [hashed(text) for text in texts])


def hashed(text: str) -> Vector:
    """The vector of a text, of length 1; zeros if it has no word."""
    counts: Counter[str] = Counter()
    words = [word for word in _WORD.findall(text.casefold()) if word not in _STOP]
    counts.update(words)
    counts.update(f"{a} {b}" for a, b in pairwise(words))
    vector = [0.0] * DIMS
    for feature, count in counts.items():
        pair = " " in feature
        # The tenth "the" of a text says little more than the first.
        weight = (_PAIR_WEIGHT if pair else _WORD_WEIGHT) * (1.0 + math.log(count))
        _add(vector, feature, weight)
        if not pair and len(feature) > _GRAM:
            grams = len(feature) - _GRAM + 1
            for at in range(grams):
                _add(vector, f"#{feature[at : at + _GRAM]}", weight * _GRAM_WEIGHT / math.sqrt(grams))
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else vector


def _add(vector: list[float], feature: str, weight: float) -> None:
    place, sign = _place(feature)
    vector[place] += weight * sign


@lru_cache(maxsize=65_536)
def _place(feature: str) -> tuple[int, float]:
    number = int.from_bytes(blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return (number >> 1) % DIMS, 1.0 if number & 1 else -1.0
