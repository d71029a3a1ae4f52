"""The built-in embedder: the same everywhere, and about words only."""

import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm_server.memory.hashing import DIMS, HashingEmbedder, hashed

pytestmark = pytest.mark.requirement("M2")


def likeness(a: str, b: str) -> float:
    """The cosine of two texts."""
    return sum(x * y for x, y in zip(hashed(a), hashed(b), strict=True))


@given(st.text())
def test_a_vector_has_length_one_or_no_word_at_all(text: str) -> None:
    vector = hashed(text)
    assert len(vector) == DIMS
    assert math.hypot(*vector) == pytest.approx(1.0) or not any(vector)


def test_texts_that_share_words_are_nearer_than_those_that_do_not() -> None:
    query = "How do I prune roses in spring?"
    near, far = "Roses are pruned in early spring.", "The compiler emits bytecode for each module."
    assert likeness(query, near) > 0.3 > 0.1 > abs(likeness(query, far))


def test_parts_of_words_count_so_that_endings_and_typing_errors_matter_little() -> None:
    assert likeness("synchronisation", "synchronised") > 0.2
    assert likeness("ThreadPoolExecutor", "threadpoolexecutor") == pytest.approx(1.0)


async def test_many_texts_give_what_each_gives_alone() -> None:
    texts = [f"text number {n}" for n in range(9)]
    assert list(await HashingEmbedder().embed(texts)) == [hashed(text) for text in texts]


def test_another_process_makes_the_same_vector() -> None:
    code = "from kfm_server.memory.hashing import hashed; print(hashed('the seed of a hash'))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.strip() == str(hashed("the seed of a hash"))
