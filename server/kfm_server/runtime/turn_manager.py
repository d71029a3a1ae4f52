"""TurnManager: what the doors ask of the runtime. It checks, finds the owner, and answers once it is durable."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any

from kfm.catalogue.errors import (
    PageTokenInvalid,
    PersonalityNotFound,
    StateConflict,
    StepNotFound,
    TurnNotFinished,
    TurnNotFound,
    Unavailable,
)
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as rpc
from kfm.type.v1 import type_pb2 as types

from kfm_server.clock import Clock
from kfm_server.context import ExecutionContext
from kfm_server.ids import IdMaker, new_id
from kfm_server.ports.journal import Claim, Journal, JournalUnavailable, Leases, TurnRow
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.delivery import Delivery
from kfm_server.runtime.facts import Accepted, Asked, Reply, Submitted
from kfm_server.runtime.feeds import Feeds
from kfm_server.runtime.following import PAGE, changes_state, follow, read_events
from kfm_server.runtime.history import BrokenHistory, fold_stored_session, fold_stored_turn
from kfm_server.runtime.sessions import Sessions
from kfm_server.turns.decide.plan import retry_from
from kfm_server.turns.state import Session, Turn
from kfm_server.turns.times import US, duration, micros, timestamp
from kfm_server.turns.view import explain, show_turn

Envelopes = list[envelope_pb2.Envelope]
Updates = list[api.TurnUpdate]
Turns = list[api.Turn]


@dataclass(frozen=True, slots=True)
class TurnDefaults:
    """What a turn gets where its request says nothing. Durations in microseconds."""

    timeout_us: int = 3600 * US
    max_steps: int = 100
    max_attempts: int = 3
    max_in_flight: int = 16
    step_timeout_us: int = 30 * US
    max_model_calls: int = 50
    max_tokens: int = 0
    max_cost_nanos: int = 0
    """Tokens and money have no bound unless one is asked for, or configured."""


class TurnManager:
    """Takes turns from every door. All methods raise KfmError subclasses and nothing else."""

    def __init__(
        self,
        *,
        journal: Journal,
        leases: Leases,
        sessions: Sessions,
        broadcaster: Broadcaster,
        feeds: Feeds,
        clock: Clock,
        defaults: TurnDefaults,
        ids: IdMaker = new_id,
    ) -> None:
        self._journal = journal
        self._sessions = sessions
        self._broadcaster = broadcaster
        self._feeds = feeds
        self._defaults = defaults
        self._ids = ids
        self._delivery = Delivery(journal=journal, leases=leases, sessions=sessions, clock=clock, ids=ids)

    def reconfigure(self, defaults: TurnDefaults) -> None:
        """What turns get from now on where their request says nothing."""
        self._defaults = defaults

    async def submit(
        self, ctx: ExecutionContext, spec: api.TurnSpec, key: str, digest: bytes, rpc: str
    ) -> Accepted:
        """Hand a message in; durable when it returns. Raises SessionBusy, Overloaded, IdempotencyConflict."""
        fact = self._submission(ctx, spec, key, digest, rpc)
        return await self._delivery.ask(fact.context, fact)

    async def run(
        self, ctx: ExecutionContext, spec: api.TurnSpec, key: str, digest: bytes, rpc: str
    ) -> AsyncGenerator[Updates]:
        """Submit and watch. A key used before joins the turn that it made."""
        fact = self._submission(ctx, spec, key, digest, rpc)
        watcher = self._broadcaster.attach(fact.turn_id, self._sessions.partition(fact.context.session_id))
        try:
            accepted = await self._delivery.ask(fact.context, fact)
            if accepted.turn_id == fact.turn_id and self._here(accepted.session_id):
                # Accepted by another owner before the partition came here: what it told is in the journal only.
                watcher.stale = not _answered_here(fact)
                async for updates in follow(self._journal, fact.turn_id, watcher, 0):
                    yield updates
                return
        finally:
            self._broadcaster.detach(fact.turn_id, watcher)
        async with aclosing(self.watch(ctx, accepted.turn_id, 0)) as rest:
            async for updates in rest:
                yield updates

    async def control(
        self,
        ctx: ExecutionContext,
        turn_id: str,
        control: ev.TurnControlEvent,
        key: str,
        digest: bytes,
        rpc: str,
    ) -> None:
        """Ask something of a turn. Raises TurnNotFound, TurnFinished, StepNotFound, StateConflict."""
        session_id = await self._session_of(ctx, turn_id)
        control.principal = ctx.principal
        claim = Claim(ctx.tenant_id, ctx.principal, rpc, key, digest, b"")
        reply: Reply = asyncio.get_running_loop().create_future()
        await self._delivery.ask(_in_session(ctx, session_id), Asked(turn_id, control, claim, reply))

    async def fork(
        self,
        ctx: ExecutionContext,
        turn_id: str,
        step_key: str,
        retry: bool,
        key: str,
        digest: bytes,
        rpc: str,
    ) -> Accepted:
        """Run a turn again from a step as a new one; `retry` takes the failed step and the root's keys.

        Raises TurnNotFound, TurnNotFinished or StateConflict (a retry of a turn that did not fail), StepNotFound.
        """
        parent = await self._turn(ctx, turn_id)
        if retry:
            if parent.phase != api.TURN_STATE_FINISHED:
                raise TurnNotFinished(metadata={"turn_id": turn_id})
            if parent.outcome == ev.OUTCOME_SUCCEEDED or not parent.steps:
                raise StateConflict("only a turn that did not succeed, and that has a plan, can be retried")
            step_key = retry_from(parent)
            if not step_key:
                raise StateConflict(
                    "every step of the turn succeeded before it ended: fork it from a step instead"
                )
        elif step_key not in parent.steps:
            raise StepNotFound(metadata={"turn_id": turn_id, "step_key": step_key})
        elif not parent.steps[step_key].definition.effect:
            raise StateConflict(
                f"the call {step_key} could not be made, and was left out: fork the turn from the step that asked for it"
            )
        request = ev.TurnEvent()
        request.CopyFrom(parent.request)
        request.on_busy = ev.BUSY_MODE_ENQUEUE
        request.principal = ctx.principal
        request.parent_turn_id = turn_id
        request.fork_step_key = step_key
        request.root_turn_id = parent.root_turn_id if retry else ""
        claim = Claim(ctx.tenant_id, ctx.principal, rpc, key, digest, b"")
        reply: Reply = asyncio.get_running_loop().create_future()
        ctx = _in_session(ctx, parent.session_id)
        fact = Submitted(ctx, self._ids("turn"), request, claim, parent, reply)
        return await self._delivery.ask(ctx, fact)

    async def get(self, ctx: ExecutionContext, turn_id: str) -> api.Turn:
        """The turn as it is now. Raises TurnNotFound."""
        return show_turn(await self._turn(ctx, turn_id))

    async def output(self, ctx: ExecutionContext, turn_id: str, step_key: str) -> bytes:
        """What a step gave, as JSON in UTF-8. Raises TurnNotFound, StepNotFound, StateConflict before it succeeded."""
        step = (await self._turn(ctx, turn_id, only=step_key)).steps.get(step_key)
        if step is None:
            raise StepNotFound(metadata={"turn_id": turn_id, "step_key": step_key})
        if step.phase != api.STEP_STATE_SUCCEEDED:
            raise StateConflict(f"the step {step_key} has not succeeded: there is no output")
        return step.output_json.encode()

    async def list(
        self, ctx: ExecutionContext, session_id: str, state: api.TurnState, page_size: int, page_token: str
    ) -> tuple[Turns, str]:
        """A page of turns, newest first, without steps, and the next page's token. Raises PageTokenInvalid."""
        filters = f"{session_id}|{int(state)}|"
        if page_token and not page_token.startswith(filters):
            raise PageTokenInvalid
        size = page_size or 50
        phase = "" if not state else api.TurnState.Name(state).removeprefix("TURN_STATE_").lower()
        try:
            rows = await self._journal.list_turns(
                tenant_id=ctx.tenant_id,
                session_id=session_id,
                phase=phase,
                before=page_token[len(filters) :],
                limit=size + 1,
            )
            stored = await self._journal.read_turns([row.turn_id for row in rows[:size]])
        except JournalUnavailable:
            raise Unavailable(retry_after_ms=1000) from None
        by_turn: dict[str, Any] = {}
        for event in stored:
            by_turn.setdefault(event.turn_id, []).append(event)
        turns: Turns = []
        for row in rows[:size]:
            try:
                turn = await fold_stored_turn(None, by_turn.get(row.turn_id, ()))
            except BrokenHistory as bad:  # one turn that cannot be read does not hide the others
                turns.append(_unreadable(row, bad))
                continue
            if turn is not None:
                turns.append(show_turn(turn, steps=False))
        more = filters + rows[size - 1].turn_id if len(rows) > size else ""
        return turns, more

    async def events(
        self, ctx: ExecutionContext, turn_id: str, after: int, limit: int
    ) -> tuple[Envelopes, bool]:
        """Durable events after a sequence, and whether more follow. Raises TurnNotFound."""
        await self._session_of(ctx, turn_id)
        events = await read_events(self._journal, turn_id, after, (limit or PAGE) + 1)
        most = limit or PAGE
        return events[:most], len(events) > most

    async def watch(
        self, ctx: ExecutionContext, turn_id: str, after: int, *, at_owner: bool = False
    ) -> AsyncGenerator[Updates]:
        """Replay the events after a sequence, then follow to the end. Raises TurnNotFound.

        Attached to the broadcaster before the journal is read, and merged by sequence: no hole, no repeat.
        `at_owner`: the reader is another process, which looks for the owner itself.
        """
        session_id = await self._session_of(ctx, turn_id)
        partition = self._sessions.partition(session_id)
        here = partition in self._sessions.owned
        if at_owner and not here:
            elsewhere = api.Reconnect(reason="the turn runs in another process", after_sequence=after)
            yield [api.TurnUpdate(reconnect=elsewhere)]
            return
        watcher = self._broadcaster.attach(turn_id, partition)
        try:
            if after:
                turn = await self._turn(ctx, turn_id)
                if turn.phase == api.TURN_STATE_FINISHED and turn.sequence <= after:
                    return  # the reader has it all, and nothing will follow
            watcher.stale = True  # what is in the journal comes first
            with nullcontext() if here else self._feeds.feed(turn_id, partition, after):
                async with aclosing(follow(self._journal, turn_id, watcher, after)) as updates:
                    async for some in updates:
                        yield some
        finally:
            self._broadcaster.detach(turn_id, watcher)

    async def wait(self, ctx: ExecutionContext, turn_id: str, timeout_s: float) -> api.Turn:
        """The turn once it has ended or needs someone, or as it is when the time is up. Raises TurnNotFound."""
        turn = await self._turn(ctx, turn_id)
        if _needs_nobody(turn):
            try:
                async with asyncio.timeout(timeout_s):
                    async with aclosing(self.watch(ctx, turn_id, turn.sequence)) as updates:
                        async for some in updates:
                            if any(changes_state(update.event) for update in some):
                                turn = await self._turn(ctx, turn_id)
                                if not _needs_nobody(turn):
                                    break
            except TimeoutError:
                pass
            turn = await self._turn(ctx, turn_id)
        return show_turn(turn)

    async def explain(self, ctx: ExecutionContext, turn_id: str) -> rpc.ExplainTurnResponse:
        """What the turn waits for. Raises TurnNotFound."""
        turn = await self._turn(ctx, turn_id)
        session = self._sessions.live(turn.session_id)
        if session is None and turn.phase == api.TURN_STATE_QUEUED:
            session = await self._read_session(turn.session_id)
        return explain(session or Session(turn.session_id), turn)

    def drain(self) -> None:
        """Take nothing more, and ask every watcher to come back."""
        self._delivery.close()
        self._broadcaster.close("the server is stopping")

    def _submission(
        self, ctx: ExecutionContext, spec: api.TurnSpec, key: str, digest: bytes, rpc: str
    ) -> Submitted:
        if self._sessions.world.personality(spec.personality) is None:
            raise PersonalityNotFound(metadata={"personality": spec.personality})
        session_id = spec.session_id or self._delivery.new_session(ctx, rpc, key)
        claim = Claim(ctx.tenant_id, ctx.principal, rpc, key, digest, b"")
        reply: Reply = asyncio.get_running_loop().create_future()
        ctx = _in_session(ctx, session_id)
        return Submitted(ctx, self._ids("turn"), self._request(ctx, spec), claim, reply=reply)

    def _request(self, ctx: ExecutionContext, spec: api.TurnSpec) -> ev.TurnEvent:
        asked, defaults = spec.limits, self._defaults
        return ev.TurnEvent(
            principal=ctx.principal,
            personality=spec.personality,
            input=spec.input,
            on_busy=spec.on_busy or ev.BUSY_MODE_ENQUEUE,
            timeout=duration(micros(spec.timeout) or defaults.timeout_us),
            limits=types.Limits(
                max_steps=asked.max_steps or defaults.max_steps,
                max_attempts=asked.max_attempts or defaults.max_attempts,
                max_in_flight=asked.max_in_flight or defaults.max_in_flight,
                step_timeout=duration(micros(asked.step_timeout) or defaults.step_timeout_us),
                max_model_calls=asked.max_model_calls or defaults.max_model_calls,
                max_tokens=asked.max_tokens or defaults.max_tokens,
                max_cost_nanos=asked.max_cost_nanos or defaults.max_cost_nanos,
            ),
            labels=spec.labels,
            policy_reference=ctx.policy_reference,
            output_schema_json=spec.output_schema_json,
        )

    def _here(self, session_id: str) -> bool:
        return self._sessions.partition(session_id) in self._sessions.owned

    async def _session_of(self, ctx: ExecutionContext, turn_id: str) -> str:
        try:
            row = await self._journal.turn(turn_id)
        except JournalUnavailable:
            raise Unavailable(retry_after_ms=1000) from None
        if row is None or row.tenant_id != ctx.tenant_id:
            raise TurnNotFound(metadata={"turn_id": turn_id})
        return row.session_id

    async def _read_session(self, session_id: str) -> Session:
        """A session that runs in another process, as the journal tells."""
        try:
            rows = await self._journal.open_turns(self._sessions.partition(session_id))
            mine = [row.turn_id for row in rows if row.session_id == session_id]
            return await fold_stored_session(self._journal, session_id, await self._journal.read_turns(mine))
        except JournalUnavailable:
            raise Unavailable(retry_after_ms=1000) from None

    async def _turn(self, ctx: ExecutionContext, turn_id: str, only: str = "") -> Turn:
        try:
            turn = await self._sessions.load_turn(turn_id, only)
        except JournalUnavailable:
            raise Unavailable(retry_after_ms=1000) from None
        if turn is None or turn.tenant_id != ctx.tenant_id:
            raise TurnNotFound(metadata={"turn_id": turn_id})
        return turn


def _unreadable(row: TurnRow, bad: BrokenHistory) -> api.Turn:
    return api.Turn(
        turn_id=row.turn_id,
        session_id=row.session_id,
        state=f"TURN_STATE_{row.phase.upper()}",
        submitted_at=timestamp(row.submitted_us),
        error=types.Error(reason=bad.reason, message=bad.message),
    )


def _needs_nobody(turn: Turn) -> bool:
    if turn.phase == api.TURN_STATE_FINISHED:
        return False
    waiting = turn.waiting.reason if turn.waiting else ev.WAIT_REASON_UNSPECIFIED
    return waiting not in (ev.WAIT_REASON_HUMAN, ev.WAIT_REASON_NEEDS_REVIEW, ev.WAIT_REASON_PAUSED)


def _answered_here(fact: Submitted) -> bool:
    reply = fact.reply
    return reply is not None and reply.done() and not reply.cancelled() and reply.exception() is None


def _in_session(ctx: ExecutionContext, session_id: str) -> ExecutionContext:
    return ExecutionContext(
        ctx.tenant_id, ctx.principal, session_id, ctx.policy_reference, ctx.trace_id, ctx.traceparent
    )
