"""The loop of one session (ENGINE section 4): facts in, one append, then tell and start."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

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
from kfm_server.clock import CallLater, Clock, Timer, on_the_loop
from kfm_server.ports.journal import (
    Claim,
    Claimed,
    Entry,
    Fenced,
    Journal,
    JournalUnavailable,
    NoPlace,
    Rejected,
)
from kfm_server.ports.steps import (
    STOPPED,
    Attempt,
    AttemptLost,
    AttemptResult,
    DeltaKind,
    PoolRunner,
    Progress,
)
from kfm_server.runtime.attempts import (
    NO_PLACE,
    attempt_of,
    not_committed,
    not_started,
    result_event,
)
from kfm_server.runtime.broadcaster import Broadcaster
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
    Reply,
    Request,
    Submitted,
    TakenOver,
    Ticked,
    refusal,
    settle_claim,
)
from kfm_server.runtime.history import put_away
from kfm_server.runtime.quick import run_quick, stands
from kfm_server.runtime.recent import RecentTurns
from kfm_server.runtime.records import records, row_key, turn_row
from kfm_server.turns.bodies import MAX_BODY_BYTES
from kfm_server.turns.decide.advance import advance
from kfm_server.turns.decide.control import control
from kfm_server.turns.decide.dispatch import on_a_pool
from kfm_server.turns.decide.draft import Draft, World
from kfm_server.turns.decide.recover import attempt_lost, recover
from kfm_server.turns.decide.step import attempt_ended, attempt_interrupted, awaited
from kfm_server.turns.decide.submit import submit
from kfm_server.turns.decide.waiting import next_wake_us
from kfm_server.turns.state import Session

log = structlog.get_logger(__name__)

STOP_SECONDS = 2.0
"""How long attempts that were cancelled are waited for, until they count as running still."""
_RETRY_SECONDS = 0.5
_BEFORE_DISPATCH = failpoints.declare("lane.dispatch.before")
_AFTER_DISPATCH = failpoints.declare("lane.dispatch.after")
_BEFORE_TELL = failpoints.declare("lane.tell.before")
_AFTER_TELL = failpoints.declare("lane.tell.after")


_Perform = Callable[[Attempt, Progress], Coroutine[Any, Any, AttemptResult]]


class Owner(Protocol):
    """The partition that a lane belongs to, as its lane sees it."""

    @property
    def partition(self) -> int:
        """Number of the partition."""
        ...

    @property
    def epoch(self) -> int:
        """Epoch under which this process owns it."""
        ...

    def may_start(self) -> bool:
        """The lease is surely still ours: an effect may start."""
        ...

    def fenced(self) -> None:
        """An append was refused: another process owns the partition."""
        ...


@dataclass(frozen=True, slots=True)
class LaneParts:
    """What every lane works with."""

    journal: Journal
    runner: PoolRunner
    clock: Clock
    world: World
    broadcaster: Broadcaster
    spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    late_result: Callable[[], None]
    recent: RecentTurns = field(default_factory=RecentTurns)
    call_later: CallLater = on_the_loop


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
        self._attempts: dict[tuple[str, str, int], asyncio.Task[Any]] = {}
        self._rows: dict[str, tuple[str, int | None]] = {}
        self._timer: Timer | None = None
        self._now_us = session.recorded_us
        self._closed = False
        self._held = False
        self._settled = True

    def post(self, fact: Fact) -> None:
        """Put a fact in the mailbox; the lane sees to the rest. A closed lane refuses requests."""
        if self._closed:
            if isinstance(fact, Submitted | Asked):
                _fail(fact.reply, Fenced(self._owner.partition))
            return
        if isinstance(fact, TakenOver) and not fact.clean:
            self._settled = False
        self._mailbox.append(fact)
        if self._task is None:
            self._task = self._parts.spawn(self._run(), f"session {self.session.session_id}")

    def reconfigure(self, parts: LaneParts) -> None:
        """Work with these parts from the next decision on."""
        self._parts = parts

    def hold(self) -> None:
        """Start no more steps: the process is stopping. What runs may end, and is recorded; what workers perform is let go."""
        self._held = True
        for (turn_id, step_key, _), task in self._attempts.items():
            turn = self.session.turn(turn_id)
            if turn is not None and on_a_pool(turn.steps[step_key]):
                _cancel(task)
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Stop everything at once: the partition is given up. Requests are told so. `busy` tells what has not ended."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._attempts.values():
            _cancel(task)
        if self._task is not None:
            self._task.cancel()
        for fact in self._mailbox:
            if isinstance(fact, Submitted | Asked):
                _fail(fact.reply, Fenced(self._owner.partition))
        self._mailbox.clear()

    @property
    def busy(self) -> list[asyncio.Task[Any]]:
        """What this process runs for the session: its attempts, and the loop while it has something to do."""
        return [*self._attempts.values(), *((self._task,) if self._task is not None else ())]

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
                            await self._refuse(request, Internal())
                        case Reload():
                            await self._start_over()
                        case _:
                            await self._iterate(facts)
                except asyncio.CancelledError:
                    _fail_all(
                        facts, Fenced(self._owner.partition)
                    )  # closed: the new owner knows whether it was done
                    raise
                except Fenced:
                    _fail_all(facts, Fenced(self._owner.partition))
                    self._owner.fenced()
                    return
                except JournalUnavailable:
                    _fail_all(facts, Unavailable("the journal cannot be reached", retry_after_ms=1000))
                    # Who asked through the inbox is told by nothing but an append: such a request stays.
                    self._mailbox.extendleft(
                        f for f in reversed(facts) if not isinstance(f, Submitted | Asked) or f.inbox_id
                    )
                    await asyncio.sleep(_RETRY_SECONDS)
                except Exception as error:
                    log.exception("session_failed", session_id=self.session.session_id)
                    _fail_all(facts, Internal())
                    if self.session is not before or not all(isinstance(f, Submitted | Asked) for f in facts):
                        self._failed(self.session.session_id, error)
                        self._mailbox.appendleft(Reload())
                    self._mailbox.extendleft(
                        Refused(f) for f in facts if isinstance(f, Submitted | Asked) and f.inbox_id
                    )
        finally:
            self._task = None
        self._rest()

    def _left(self, key: tuple[str, str, int], attempt: asyncio.Task[None]) -> None:
        """An attempt is over, also one that was cancelled before it began."""
        self._attempts.pop(key, None)
        self._rest()

    def _rest(self) -> None:
        if self._task is None and self.session.idle and not self._attempts and not self._closed:
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
            await self._refuse(request, StateConflict("the turn was submitted before"))
            return
        try:
            for fact in facts:
                self._apply(draft, fact)
        except KfmError as refused:
            assert request is not None
            await self._refuse(request, refused)
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
                await self._consume(request.inbox_id)
            settle_claim(request, taken.claim)
            return
        except Rejected:
            log.exception("append_rejected", session_id=self.session.session_id)
            raise
        for fact in facts:
            _tell(fact, recorded=True)
        if request is not None and request.reply is not None and not request.reply.done():
            assert accepted is not None
            request.reply.set_result(accepted)
        self._start(draft)
        if isinstance(facts[0], TakenOver):
            self._settled = True

    async def _start_over(self) -> None:
        """The engine failed: what is in memory may be wrong. Only the journal and the requests that wait are kept."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._attempts.values():
            _cancel(task)
        left = await stopped(self._attempts.values())
        await asyncio.sleep(_RETRY_SECONDS)
        try:
            self.session = await self._reload(self.session.session_id)
        except HistoryUnreadable as held:
            for request in [fact for fact in self._mailbox if isinstance(fact, Submitted | Asked)]:
                await self._refuse(request, held)
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

    def _apply(self, draft: Draft, fact: Fact) -> None:
        match fact:
            case Submitted():
                submit(draft, fact.context, fact.turn_id, fact.request, fact.parent)
            case Asked():
                control(draft, fact.turn_id, fact.asked)
            case Ended():
                if not attempt_ended(draft, fact.turn_id, fact.attempt, fact.result):
                    self._parts.late_result()
                    log.warning("late_result_refused", turn_id=fact.turn_id, step=fact.result.step_key)
                    _tell(fact, recorded=False)
            case Interrupted():
                attempt_interrupted(draft, fact.turn_id, fact.step_key, fact.attempt)
            case Lost():
                attempt_lost(draft, fact.turn_id, fact.step_key, fact.attempt, fact.gone_us)
            case Ticked():
                advance(draft)
            case TakenOver():
                recover(draft, clean=fact.clean)
            case Due() | Refused() | Reload():
                raise AssertionError("these decide nothing")

    async def _commit(
        self,
        draft: Draft,
        claim: Claim | None,
        consumed: tuple[int, ...],
        append: Callable[[Entry], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Append, and only then take the new state and tell of it."""
        if draft.events or claim is not None or consumed:
            rows = {t.turn_id: row_key(t) for t in draft.touched.values()}
            changed = tuple(
                turn_row(draft.touched[i], self._owner.partition)
                for i, key in rows.items()
                if self._rows.get(i) != key
            )
            if any(len(event.payload.value) > MAX_BODY_BYTES for event in draft.events):
                await put_away(self._parts.journal, draft.events)
            owner = self._owner
            entry = Entry(owner.partition, owner.epoch, records(draft.events), changed, claim, consumed)
            await (append or self._parts.journal.append)(entry)
            self._rows.update(rows)
            for turn in draft.touched.values():
                if turn.phase == api.TURN_STATE_FINISHED:
                    self._rows.pop(turn.turn_id, None)
                    self._parts.recent.add(turn)
            self.session = draft.session
            failpoints.hit(_BEFORE_TELL)
            self._parts.broadcaster.publish(draft.events, self._owner.epoch)
            failpoints.hit(_AFTER_TELL)
        for stop in draft.stops:
            task = self._attempts.get((stop.turn_id, stop.step_key, stop.attempt))
            if task is not None:
                _cancel(task, STOPPED)
        for stop in draft.withdrawals:
            self._parts.runner.withdraw(stop.turn_id, stop.step_key, stop.attempt)
        self._set_timer()

    async def _consume(self, inbox_id: int, claim: Claim | None = None) -> None:
        """Take a row out of the inbox that leads to no event; `claim` is what its asker is told."""
        entry = Entry(self._owner.partition, self._owner.epoch, (), (), claim, (inbox_id,))
        await self._parts.journal.append(entry)

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
                self._attend(attempt, self._parts.runner.run)
            failpoints.hit(_AFTER_DISPATCH)
        for adopt in draft.adopts:
            turn = self.session.turn(adopt.turn_id)
            if turn is not None and stands(self.session, adopt):
                performer = partial(self._parts.runner.adopt, soon=adopt.soon)
                self._attend(attempt_of(turn, adopt, self._owner.epoch), performer)

    def _attend(self, attempt: Attempt, perform: _Perform) -> None:
        key = (attempt.turn_id, attempt.step_key, attempt.attempt)
        task = self._parts.spawn(self._perform(attempt, perform), f"attempt {attempt.key}")
        self._attempts[key] = task
        task.add_done_callback(partial(self._left, key))

    async def _perform(self, attempt: Attempt, perform: _Perform) -> None:
        recorded = None
        runs_here = not attempt.pool and attempt.effect != types.EFFECT_CONTRACT_PURE
        if runs_here and not self._owner.may_start():
            result = not_started(attempt.step_key)
        else:
            try:
                ended = await perform(attempt, self._progress(attempt))
            except AttemptLost as lost:
                self.post(Lost(attempt.turn_id, attempt.step_key, attempt.attempt, lost.gone_us))
                return
            result, recorded = result_event(attempt.step_key, ended), ended.recorded
        result.compensation = attempt.compensation
        self.post(Ended(attempt.turn_id, attempt.attempt, result, recorded))

    def _progress(self, attempt: Attempt) -> Progress:
        index = 0

        def tell(text: str, kind: DeltaKind = "progress") -> None:
            nonlocal index
            delta = api.StepDelta(step_key=attempt.step_key, attempt=attempt.attempt, index=index)
            setattr(delta, kind, text)
            index += 1
            self._parts.broadcaster.delta(attempt.turn_id, delta, self._owner.epoch)

        return tell

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
                ended = await self._parts.runner.run(attempt, self._progress(attempt), transaction.connection)
                result = result_event(attempt.step_key, ended)
                if ended.status == ev.STEP_STATUS_SUCCEEDED:
                    draft = self._draft()
                    attempt_ended(draft, attempt.turn_id, attempt.attempt, result)
                    await self._commit(draft, None, (), transaction.commit)
                    self._start(draft)
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

    async def _refuse(self, request: Request, refused: KfmError) -> None:
        """Nothing changes. A request from the inbox leaves its refusal for whoever accepted it.

        What was done under this key before may be why it is refused now (a turn cancelled, a session made busy):
        then the stored outcome is the answer.
        """
        claim = request.claim
        stored = await self._parts.journal.find_claim(claim.tenant_id, claim.principal, claim.rpc, claim.key)
        if request.inbox_id:
            mine = None if stored is not None else refusal(claim, request.inbox_id, refused)
            try:
                await self._consume(request.inbox_id, mine)
            except Claimed:  # it was refused before, and came again: its row was read before that
                await self._consume(request.inbox_id)
        if stored is not None:
            settle_claim(request, stored)
            return
        _fail(request.reply, refused)


async def stopped(tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Wait until tasks that were cancelled have ended, for at most STOP_SECONDS; those that have not."""
    tasks = set(tasks)
    return (await asyncio.wait(tasks, timeout=STOP_SECONDS))[1] if tasks else tasks


def _cancel(attempt: asyncio.Task[Any], why: str | None = None) -> None:
    """Cancel it, but once: another time would cut short how its tool winds up."""
    if not attempt.cancelling():
        attempt.cancel(why)


def _tell(fact: Fact, *, recorded: bool) -> None:
    """Whoever performed an attempt hears, once, what became of its result."""
    if isinstance(fact, Ended) and fact.recorded is not None:
        fact.recorded(recorded)


def _fail(reply: Reply | None, error: Exception) -> None:
    if reply is not None and not reply.done():
        reply.set_exception(error)


def _fail_all(facts: list[Fact], error: Exception) -> None:
    for fact in facts:
        if isinstance(fact, Submitted | Asked):
            _fail(fact.reply, error)
