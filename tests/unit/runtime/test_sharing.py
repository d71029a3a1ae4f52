"""Shares: all partitions, to nobody one more than to another but for what cannot be divided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm_server.runtime.sharing import beyond, share

pytestmark = pytest.mark.requirement("R10")
RUNTIMES = st.dictionaries(st.text("abc", max_size=3), st.integers(0, 40), min_size=1)


@given(RUNTIMES, st.integers(1, 1024))
def test_the_shares_are_all_partitions_and_differ_by_at_most_one(
    runtimes: dict[str, int], partitions: int
) -> None:
    shares = [share(name, runtimes, partitions) for name in runtimes]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


@given(RUNTIMES, st.integers(1, 64))
def test_nobody_hands_over_what_is_of_its_share_or_more_than_others_lack(
    runtimes: dict[str, int], partitions: int
) -> None:
    lacking = sum(max(0, share(name, runtimes, partitions) - held) for name, held in runtimes.items())
    for name, held in runtimes.items():
        over = beyond(name, runtimes, partitions)
        assert 0 <= over <= lacking
        assert over == 0 or held - over >= share(name, runtimes, partitions)


def test_a_process_that_joins_gets_a_part_of_each() -> None:
    runtimes = {"a": 8, "b": 8, "c": 0}
    assert [beyond(name, runtimes, 16) for name in runtimes] == [2, 3, 0]
    assert [share(name, runtimes, 16) for name in runtimes] == [6, 5, 5]


def test_what_nobody_lacks_is_kept() -> None:
    assert beyond("b", {"a": 5, "b": 6, "c": 5}, 16) == 0
    assert beyond("a", {"a": 16}, 16) == 0
