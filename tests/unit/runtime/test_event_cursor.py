"""Cursors of subscriptions: short, exact, and never mistaken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm.catalogue.errors import PageTokenInvalid
from kfm_server.runtime.event_cursor import MAX_CURSOR, decode_cursor, encode_cursor

pytestmark = pytest.mark.requirement("R11")


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=32), st.integers(0, 5))
def test_a_cursor_says_what_was_put_into_it(offsets: list[int], first: int) -> None:
    at = dict(enumerate(offsets, first))
    assert decode_cursor(encode_cursor(64, at), 64) == at


def test_a_cursor_of_the_most_partitions_fits_its_field() -> None:
    spread = {p: 2**40 + p * 8192 for p in range(1024)}
    assert len(encode_cursor(1024, spread)) <= MAX_CURSOR


@given(st.text(max_size=60))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(PageTokenInvalid):
        decode_cursor(text, 16)


@given(st.data())
def test_a_changed_cursor_is_refused(data: st.DataObject) -> None:
    cursor = encode_cursor(16, {p: 1000 + p for p in range(16)})
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != cursor[at]))
    try:
        found = decode_cursor(cursor[:at] + other + cursor[at + 1 :], 16)
    except PageTokenInvalid:
        return
    assert found == decode_cursor(cursor, 16), "only the bits that base64 leaves over may differ"


def test_a_cursor_of_another_number_of_partitions_is_refused() -> None:
    with pytest.raises(PageTokenInvalid, match="another database"):
        decode_cursor(encode_cursor(8, dict.fromkeys(range(8), 1)), 16)
