"""The mailbox of one reader: bounded; what is dropped is told."""

import pytest
from kfm.event.v1 import envelope_pb2
from kfm.turn.v1 import turn_pb2 as api
from kfm_server.runtime.broadcaster import UNSENT_LIMIT_BYTES, Broadcaster, Watcher

pytestmark = pytest.mark.requirement("E1", "FT12")

PIECE = "x" * 4096


def reader() -> tuple[Broadcaster, Watcher]:
    broadcaster = Broadcaster()
    return broadcaster, broadcaster.attach("turn_1", 0)


def event(sequence: int, size: int = 10) -> envelope_pb2.Envelope:
    found = envelope_pb2.Envelope(turn_id="turn_1", sequence=sequence)
    found.payload.value = b"x" * size
    return found


def talk(broadcaster: Broadcaster, step: str, pieces: int, attempt: int = 1) -> None:
    for index in range(pieces):
        delta = api.StepDelta(step_key=step, attempt=attempt, index=index, progress=PIECE)
        broadcaster.delta("turn_1", delta, 7)


def kinds(updates: list[api.TurnUpdate]) -> list[str]:
    return [update.WhichOneof("update") or "" for update in updates]


def test_deltas_past_the_limit_become_one_gap_and_events_stay_in_order() -> None:
    broadcaster, watcher = reader()
    broadcaster.publish([event(1)], 7)
    talk(broadcaster, "s1", 32)
    broadcaster.publish([event(2)], 7)
    assert watcher.unsent <= UNSENT_LIMIT_BYTES
    taken = watcher.take()
    assert kinds(taken) == ["event", "gap", "event"]
    assert (taken[1].gap, taken[1].epoch) == (api.Gap(step_key="s1", attempt=1), 7)
    assert not watcher.lost


def test_the_deltas_of_another_step_and_of_another_attempt_are_kept() -> None:
    broadcaster, watcher = reader()
    talk(broadcaster, "s1", 1)
    talk(broadcaster, "s2", 1, attempt=1)
    talk(broadcaster, "s2", 31, attempt=2)
    taken = watcher.take()
    assert [(u.delta.step_key, u.delta.attempt) for u in taken if u.HasField("delta")][:2] == [
        ("s1", 1),
        ("s2", 1),
    ]
    assert [u.gap.attempt for u in taken if u.HasField("gap")] == [2]


def test_an_event_that_finds_no_room_is_read_again_later_and_dropped_deltas_leave_their_gap() -> None:
    broadcaster, watcher = reader()
    talk(broadcaster, "s1", 20)
    broadcaster.publish([event(1, UNSENT_LIMIT_BYTES // 2)], 7)
    assert watcher.lost
    talk(broadcaster, "s2", 1)
    assert [(u.gap.step_key, u.gap.attempt) for u in watcher.take()] == [("s1", 1), ("s2", 1)]


def test_a_reader_that_only_has_to_look_into_the_journal_keeps_its_deltas() -> None:
    broadcaster, watcher = reader()
    talk(broadcaster, "s1", 2)
    broadcaster.behind("turn_1")
    talk(broadcaster, "s1", 1)
    assert watcher.stale and not watcher.lost
    assert kinds(watcher.take()) == ["delta"] * 3


def test_what_another_process_tells_goes_to_every_reader_of_the_turn_and_to_no_other() -> None:
    broadcaster, watcher = reader()
    second, stranger = broadcaster.attach("turn_1", 0), broadcaster.attach("turn_2", 0)
    broadcaster.pass_on("turn_1", api.TurnUpdate(gap=api.Gap(step_key="s1", attempt=1), epoch=3))
    broadcaster.pass_on("turn_1", api.TurnUpdate(event=event(4), epoch=3))
    assert kinds(watcher.take()) == kinds(second.take()) == ["gap", "event"]
    assert not stranger.take()
    assert broadcaster.most_unsent == 0
