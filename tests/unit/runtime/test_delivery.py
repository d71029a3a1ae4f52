"""How requests reach the owner of their session, and what is told when the same key comes again."""

import asyncio

import pytest
from kfm.catalogue.errors import IdempotencyConflict, KfmError
from kfm.event.v1 import turn_events_pb2 as ev
from kfm_server.context import ExecutionContext
from kfm_server.journal.memory import MemoryJournal

from tests.support.plans import document, question
from tests.support.processes import Engine, engine, spec

CTX = ExecutionContext()
SESSION = "ses_x"


async def submit(
    at: Engine, key: str, on_busy: ev.BusyMode = ev.BUSY_MODE_ENQUEUE, digest: bytes = b"digest"
) -> str:
    """A turn that waits for a person; its id."""
    turn = spec(document(question("s1")), SESSION)
    turn.on_busy = on_busy
    return (await at.manager.submit(CTX, turn, key, digest, "SubmitTurn")).turn_id


async def cancel(at: Engine, turn_id: str) -> None:
    asked = ev.TurnControlEvent(verb=ev.TURN_VERB_CANCEL)
    await at.manager.control(CTX, turn_id, asked, f"cancel {turn_id}", b"", "CancelTurn")


@pytest.mark.parametrize(
    ("reason", "on_busy"),
    [("REASON_OVERLOADED", ev.BUSY_MODE_ENQUEUE), ("REASON_SESSION_BUSY", ev.BUSY_MODE_REJECT)],
)
@pytest.mark.requirement("R10", "E4")
async def test_a_refusal_through_another_process_is_the_owners_and_its_key_may_be_used_again(
    reason: str, on_busy: ev.BusyMode
) -> None:
    journal = MemoryJournal()
    async with engine("owner", journal, max_queued_turns=1) as owner, engine("other", journal) as other:
        first, second = await submit(owner, "k1"), await submit(owner, "k2")
        with pytest.raises(KfmError) as direct:
            await submit(owner, "k3", on_busy)
        for _ in range(2):
            with pytest.raises(KfmError) as through:
                await submit(other, "k3", on_busy)
            assert direct.value.reason == through.value.reason == reason
            assert through.value.message == direct.value.message
            assert through.value.metadata == direct.value.metadata
            assert through.value.retry_after_ms == direct.value.retry_after_ms
        for turn_id in (second, first):
            await cancel(owner, turn_id)
        made = await submit(other, "k3", on_busy)
        assert made not in (first, second)
        assert await submit(owner, "k3", on_busy) == await submit(other, "k3", on_busy) == made


@pytest.mark.requirement("R10", "E4")
async def test_the_body_that_was_first_is_answered_though_another_one_comes_at_the_same_time() -> None:
    journal = MemoryJournal()
    async with engine("owner", journal) as owner:
        made = await submit(owner, "k1")
        wrong, again, right = await asyncio.gather(
            submit(owner, "k1", digest=b"another"),
            submit(owner, "k1", digest=b"another"),
            submit(owner, "k1"),
            return_exceptions=True,
        )
    assert isinstance(wrong, IdempotencyConflict) and isinstance(again, IdempotencyConflict)
    assert right == made


@pytest.mark.requirement("E1")
async def test_what_a_queued_turn_waits_for_is_told_by_every_process() -> None:
    journal = MemoryJournal()
    async with engine("owner", journal) as owner, engine("other", journal) as other:
        first, second, third = [await submit(owner, f"k{n}") for n in range(3)]
        answers = [await at.manager.explain(CTX, third) for at in (owner, other)]
        assert [wait.blocking_turn_id for wait in answers[0].waits] == [first, second]
        assert answers[0] == answers[1]
