"""The tail of what this process appended: exactly what the journal would answer, or nothing."""

from kfm_server.journal.tail import MOST_ROWS, Tail
from kfm_server.ports.journal import Entry, Record


def entry(partition: int, *names: str, size: int = 1) -> Entry:
    """An entry of events whose sequences are told by their names."""
    return Entry(partition, 7, tuple(Record(name, 1, "topic", b"x" * size) for name in names))


def found(tail: Tail, partition: int, after: int, limit: int = 1000) -> list[tuple[int, str]]:
    """Offsets and names after an offset."""
    return [(row.offset, row.turn_id) for row in tail.read(partition, after, limit)]


def test_offsets_are_counted_back_from_the_head_of_each_partition() -> None:
    tail = Tail()
    tail.add([entry(0, "a", "b"), entry(1, "c"), entry(0, "d"), entry(2)], {0: 12, 1: 1, 2: 5})
    assert found(tail, 0, 9) == [(10, "a"), (11, "b"), (12, "d")]
    assert found(tail, 0, 10, 1) == [(11, "b")]
    assert found(tail, 1, 0) == [(1, "c")]
    assert found(tail, 2, 4) == []
    assert {row.epoch for row in tail.read(0, 9, 9)} == {7}


def test_nothing_is_told_unless_the_very_next_event_is_here() -> None:
    tail = Tail()
    tail.add([entry(0, "a", "b")], {0: 12})
    assert found(tail, 0, 9) == []
    assert found(tail, 0, 12) == []
    assert found(tail, 3, 0) == []


def test_what_does_not_follow_begins_the_tail_anew() -> None:
    tail = Tail()
    tail.add([entry(0, "a")], {0: 10})
    tail.add([entry(0, "c")], {0: 12})  # another process had the partition meanwhile
    assert found(tail, 0, 9) == []
    assert found(tail, 0, 11) == [(12, "c")]
    tail.add([entry(0, "d")], {0: 12})  # a database that lost its end
    assert found(tail, 0, 11) == [(12, "d")]


def test_it_is_bounded_in_events_and_in_bytes() -> None:
    tail = Tail(most_bytes=1000)
    tail.add([entry(0, *map(str, range(MOST_ROWS + 10)))], {0: MOST_ROWS + 10})
    assert found(tail, 0, 9) == []
    assert len(found(tail, 0, 10)) == MOST_ROWS
    tail.add([entry(1, "a", size=600)], {1: 1})
    assert len(found(tail, 0, 10)) == MOST_ROWS
    tail.add([entry(2, "b", size=600)], {2: 1})
    assert found(tail, 0, 10) == found(tail, 1, 0) == []
    assert found(tail, 2, 0) == [(1, "b")]
