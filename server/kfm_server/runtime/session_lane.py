"""The loop of one session (ENGINE section 4): facts in, one append, then start and tell."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from kfm.catalogue.errors import (
    HistoryUnreadable,
    Internal,
    KfmError,
    StateConflict,
    Unavailable,
)
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server import failpoints
from kfm_server.clock import Timer
from kfm_server.ports.journal import (
    Claim,
    Claimed,
    Entry,
    Fenced,
    JournalUnavailable,
    NoPlace,
    Rejected,
)
from kfm_server.ports.steps import Attempt
from kfm_server.runtime.applying import apply_fact
from kfm_server.runtime.attempts import (
    NO_PLACE,
    attempt_of,
    not_committed,
    not_started,
    result_event,
)
from kfm_server.runtime.facts import (
    Accepted,
    Asked,
    Due,
    Ended,
    Fact,
    Interrupted,
    Lost,
    Refused,
    Reload,
    Submitted,
    TakenOver,
    Ticked,
    fail_all,
    settle_claim,
    tell_performer,
)
from kfm_server.runtime.history import put_away
from kfm_server.runtime.lane_attempts import LaneAttempts, stopped
from kfm_server.runtime.lane_parts import LaneParts, Owner
from kfm_server.runtime.quick import run_quick, stands
from kfm_server.runtime.records import TurnRows, records
from kfm_server.runtime.refusing import consume, refuse
from kfm_server.turns.bodies import MAX_BODY_BYTES
from kfm_server.turns.decide.dispatch import on_a_pool
from kfm_server.turns.decide.draft import Draft
from kfm_server.turns.decide.step import attempt_ended, awaited
from kfm_server.turns.decide.waiting import next_wake_us
from kfm_server.turns.state import Session

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 0.5
_BEFORE_DISPATCH = failpoints.declare("lane.dispatch.before")
_AFTER_DISPATCH = failpoints.declare("lane.dispatch.after")
_BEFORE_TELL = failpoints.declare("lane.tell.before")
_AFTER_TELL = failpoints.declare("lane.tell.after")


class SessionLane:
    """One session in memory. It runs while its mailbox holds something, and rests between."""

    def __init__(
        self,
        session: Session,
        owner: Owner,
        parts: LaneParts,
        done: Callable[["SessionLane"], None],
        failed: Callable[[str, Exception], None],
        reload: Callable[[str], Coroutine[Any, Any, Session]],
    ) -> None:
        """`done`: the session rests. `failed`: the engine itself failed at it.

        `reload` folds it from the journal again after that; it raises HistoryUnreadable when the session is held now.
        """
        self.session = session
        self._owner = owner
        self._parts = parts
        self._done = done
        self._failed = failed
        self._reload = reload
        self._mailbox: deque[Fact] = deque()
        self._task: asyncio.Task[None] | None = None
        self._attempts = LaneAttempts(owner, parts, self.post, self._rest)
        self._rows = TurnRows(owner.partition)
        self._timer: Timer | None = None
        self._now_us = session.recorded_us
        self._closed = False
        self._held = False
        self._settled = True

    def post(self, fact: Fact) -> None:
        """Put a fact in the mailbox; the lane sees to the rest. A closed lane refuses requests."""
        if self._closed:
            fail_all((fact,), Fenced(self._owner.partition))
            return
        if isinstance(fact, TakenOver) and not fact.clean:
            self._settled = False
        self._mailbox.append(fact)
        if self._task is None:
            self._task = self._parts.spawn(self._run(), f"session {self.session.session_id}")

    def reconfigure(self, parts: LaneParts) -> None:
        """Work with these parts from the next decision on."""
        self._parts = self._attempts.parts = parts

    def hold(self) -> None:
        """Start no more steps: the process is stopping. What runs may end, and is recorded; what workers perform is let go."""
        self._held = True
        self._attempts.let_go(self._is_on_a_pool)
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Stop everything at once: the partition is given up. Requests are told so. `busy` tells what has not ended."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._attempts.let_go()
        if self._task is not None:
            self._task.cancel()
        fail_all(self._mailbox, Fenced(self._owner.partition))
        self._mailbox.clear()

    def _is_on_a_pool(self, turn_id: str, step_key: str) -> bool:
        turn = self.session.turn(turn_id)
        return turn is not None and on_a_pool(turn.steps[step_key])

    @property
    def busy(self) -> list[asyncio.Task[Any]]:
        """What this process runs for the session: its attempts, and the loop while it has something to do."""
        return [*self._attempts.tasks, *((self._task,) if self._task is not None else ())]

    @property
    def working(self) -> bool:
        """Something that arrived is not recorded yet."""
        return self._task is not None

    @property
    def settled(self) -> bool:
        """What an owner before this one may have left running is recorded, or there is nothing of the kind."""
        return self._settled

    async def _run(self) -> None:
        try:
            while self._mailbox:
                facts = self._take()
                before = self.session
                try:
                    match facts[0]:
                        case Due(attempt=attempt):
                            await self._transact(attempt)
                        case Refused(request=request):
                            await refuse(self._parts.journal, self._owner, request, Internal())
                        case Reload():
                            await self._start_over()
                        case _:
                            await self._iterate(facts)
                except asyncio.CancelledError:
                    fail_all(
                        facts, Fenced(self._owner.partition)
                    )  # closed: the new owner knows whether it was done
                    raise
                except Fenced:
                    fail_all(facts, Fenced(self._owner.partition))
                    self._owner.fenced()
                    return
                except JournalUnavailable:
                    fail_all(facts, Unavailable("the journal cannot be reached", retry_after_ms=1000))
                    # Who asked through the inbox is told by nothing but an append: such a request stays.
                    self._mailbox.extendleft(
                        f for f in reversed(facts) if not isinstance(f, Submitted | Asked) or f.inbox_id
                    )
                    await asyncio.sleep(_RETRY_SECONDS)
                except Exception as error:
                    log.exception("session_failed", session_id=self.session.session_id)
                    fail_all(facts, Internal())
                    if self.session is not before or not all(isinstance(f, Submitted | Asked) for f in facts):
                        self._failed(self.session.session_id, error)
                        self._mailbox.appendleft(Reload())
                    self._mailbox.extendleft(
                        Refused(f) for f in facts if isinstance(f, Submitted | Asked) and f.inbox_id
                    )
        finally:
            self._task = None
        self._rest()

    def _rest(self) -> None:
        if self._task is None and self.session.idle and not self._attempts.tasks and not self._closed:
            self._done(self)

    def _take(self) -> list[Fact]:
        """One request alone, for it may be refused; or all other facts up to the next request."""
        facts = [self._mailbox.popleft()]
        if isinstance(facts[0], Ended | Interrupted | Lost | Ticked):
            while self._mailbox and isinstance(self._mailbox[0], Ended | Interrupted | Lost | Ticked):
                facts.append(self._mailbox.popleft())
        return facts

    async def _iterate(self, facts: list[Fact]) -> None:
        draft = self._draft()
        request = facts[0] if isinstance(facts[0], Submitted | Asked) else None
        if isinstance(request, Submitted) and self.session.turn(request.turn_id) is not None:
            # It was committed although its caller was told otherwise, and came again through the inbox.
            await refuse(
                self._parts.journal, self._owner, request, StateConflict("the turn was submitted before")
            )
            return
        try:
            for fact in facts:
                if not apply_fact(draft, fact):
                    self._refuse_late(fact)
        except KfmError as refused:
            assert request is not None
            await refuse(self._parts.journal, self._owner, request, refused)
            return
        if not isinstance(facts[0], TakenOver) and not (request and request.inbox_id):
            await run_quick(draft, self._parts.runner, self._owner.epoch)
        accepted: Accepted | None = None
        claim: Claim | None = None
        if request is not None:
            turn = draft.touched[request.turn_id]
            accepted = Accepted(request.turn_id, self.session.session_id, turn.phase)
            claim = replace(request.claim, outcome=accepted.encode())
        try:
            consumed = (request.inbox_id,) if request is not None and request.inbox_id else ()
            await self._commit(draft, claim, consumed)
        except Claimed as taken:
            assert request is not None
            if request.inbox_id:
                await consume(self._parts.journal, self._owner, request.inbox_id)
            settle_claim(request, taken.claim)
            return
        except Rejected:
            log.exception("append_rejected", session_id=self.session.session_id)
            raise
        for fact in facts:
            tell_performer(fact, recorded=True)
        if request is not None and request.reply is not None and not request.reply.done():
            assert accepted is not None
            request.reply.set_result(accepted)
        if isinstance(facts[0], TakenOver):
            self._settled = True

    async def _start_over(self) -> None:
        """The engine failed: what is in memory may be wrong. Only the journal and the requests that wait are kept."""
        if self._timer is not None:
            self._timer.cancel()
        self._attempts.let_go()
        left = await stopped(self._attempts.tasks)
        await asyncio.sleep(_RETRY_SECONDS)
        try:
            self.session = await self._reload(self.session.session_id)
        except HistoryUnreadable as held:
            for request in [fact for fact in self._mailbox if isinstance(fact, Submitted | Asked)]:
                await refuse(self._parts.journal, self._owner, request, held)
            self._mailbox.clear()
            self.session = Session(self.session.session_id)
            return
        self._settled = self._settled and not left
        self._now_us = max(self._now_us, self.session.recorded_us)
        self._rows.clear()
        requests = [fact for fact in self._mailbox if isinstance(fact, Submitted | Asked)]
        self._mailbox = deque((TakenOver(clean=self._settled), *requests))

    def _draft(self) -> Draft:
        self._now_us = max(self._now_us, self._parts.clock.now_us())
        return Draft(self.session, self._now_us, self._parts.world, hold=self._held)

    def _refuse_late(self, late: Fact) -> None:
        assert isinstance(late, Ended)
        self._parts.late_result()
        log.warning("late_result_refused", turn_id=late.turn_id, step=late.result.step_key)
        tell_performer(late, recorded=False)

    async def _commit(
        self,
        draft: Draft,
        claim: Claim | None,
        consumed: tuple[int, ...],
        append: Callable[[Entry], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Append, and only then take the new state, start what it asks for and tell of it."""
        if draft.events or claim is not None or consumed:
            touched = draft.touched.values()
            if any(len(event.payload.value) > MAX_BODY_BYTES for event in draft.events):
                await put_away(self._parts.journal, draft.events)
            owner = self._owner
            entry = Entry(
                owner.partition,
                owner.epoch,
                records(draft.events),
                self._rows.changed(touched),
                claim,
                consumed,
            )
            await (append or self._parts.journal.append)(entry)
            self._rows.written(touched)
            for turn in touched:
                if turn.phase == api.TURN_STATE_FINISHED:
                    self._parts.recent.add(turn)
            self.session = draft.session
        for stop in draft.stops:
            self._attempts.stop(stop.turn_id, stop.step_key, stop.attempt)
        for stop in draft.withdrawals:
            self._parts.runner.withdraw(stop.turn_id, stop.step_key, stop.attempt)
        self._start(draft)  # before anybody is told, who would run before it
        failpoints.hit(_BEFORE_TELL)
        self._parts.broadcaster.publish(draft.events, self._owner.epoch)
        failpoints.hit(_AFTER_TELL)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake = None if self._held else next_wake_us(self.session)
        if wake is not None:
            delay = max(0.0, (wake - self._parts.clock.now_us()) / 1_000_000)
            self._timer = self._parts.call_later(delay, partial(self.post, Ticked()))

    def _start(self, draft: Draft) -> None:
        for start in draft.starts:
            turn = self.session.turn(start.turn_id)
            if turn is None or not stands(self.session, start):
                continue  # ended already, by the same decision or by a TRANSACTIONAL step just before
            attempt = attempt_of(turn, start, self._owner.epoch)
            failpoints.hit(_BEFORE_DISPATCH)
            if attempt.effect == types.EFFECT_CONTRACT_TRANSACTIONAL:
                self._mailbox.append(Due(attempt))
            else:
                self._attempts.start(attempt)
            failpoints.hit(_AFTER_DISPATCH)
        for adopt in draft.adopts:
            turn = self.session.turn(adopt.turn_id)
            if turn is not None and stands(self.session, adopt):
                self._attempts.adopt(attempt_of(turn, adopt, self._owner.epoch), soon=adopt.soon)

    async def _transact(self, attempt: Attempt) -> None:
        """Run a TRANSACTIONAL step: its writes and its result commit together, or neither."""
        if awaited(self.session, attempt.turn_id, attempt.step_key, attempt.attempt) is None:
            return  # ended since
        if not self._owner.may_start():
            self.post(Ended(attempt.turn_id, attempt.attempt, not_started(attempt.step_key)))
            return
        fact: Fact = Interrupted(attempt.turn_id, attempt.step_key, attempt.attempt)
        try:
            async with self._parts.journal.transaction() as transaction:
                ended = await self._parts.runner.run(
                    attempt, self._attempts.progress(attempt), transaction.connection
                )
                result = result_event(attempt.step_key, ended)
                if ended.status == ev.STEP_STATUS_SUCCEEDED:
                    draft = self._draft()
                    attempt_ended(draft, attempt.turn_id, attempt.attempt, result)
                    await self._commit(draft, None, (), transaction.commit)
                    return
                if not transaction.lost:
                    fact = Ended(attempt.turn_id, attempt.attempt, result)
        except NoPlace:
            fact = Ended(attempt.turn_id, attempt.attempt, not_started(attempt.step_key, NO_PLACE))
        except JournalUnavailable:
            pass  # rolled back: it is interrupted, not failed
        except Rejected as refused:
            fact = Ended(attempt.turn_id, attempt.attempt, not_committed(attempt.step_key, refused))
        self.post(fact)
