"""How a request reaches the owner of its session: its mailbox when that is this process, the inbox when not."""

import asyncio

from kfm.catalogue.errors import Draining, NotOwner, Unavailable
from kfm.catalogue.events import fill
from kfm.event.v1 import envelope_pb2

from kfm_server.clock import Clock
from kfm_server.context import ExecutionContext
from kfm_server.ids import IdMaker, partition_of
from kfm_server.ports.journal import Claim, Fenced, InboxItem, Journal, JournalUnavailable, Leases
from kfm_server.runtime.facts import Accepted, Request, Submitted, outcome_of, refusal_key, refused_as
from kfm_server.runtime.sessions import Sessions
from kfm_server.turns.times import timestamp

OWNER_SECONDS = 10.0
"""How long a request that went through the inbox waits for its owner's answer; then NotOwner, and it stays there."""
_FIRST_LOOK_SECONDS, _LOOK_SECONDS = 0.004, 0.05
"""Between two looks for the owner's answer: each half as long again as the one before, up to the second."""


class Delivery:
    """One per process. The same key with the same body, asked twice here at one time, is delivered once."""

    def __init__(
        self, *, journal: Journal, leases: Leases, sessions: Sessions, clock: Clock, ids: IdMaker
    ) -> None:
        self._journal = journal
        self._leases = leases
        self._sessions = sessions
        self._clock = clock
        self._ids = ids
        self._joined: dict[Claim, asyncio.Future[Accepted]] = {}
        self._closed = False

    def close(self) -> None:
        """Deliver nothing more: requests are told that the server is stopping."""
        self._closed = True

    def new_session(self, ctx: ExecutionContext, rpc: str, key: str) -> str:
        """A session id in a partition of this process, or, if it owns none, in the one that the key names.

        A retry elsewhere may get another one: the key's row in the database tells that it is a retry.
        """
        partitions = self._sessions.partitions
        named = partition_of(f"{ctx.tenant_id}|{ctx.principal}|{rpc}|{key}", partitions)
        owned = sorted(self._sessions.owned)
        wanted = named if not owned or named in self._sessions.owned else owned[named % len(owned)]
        while True:
            session_id = self._ids("ses")
            if partition_of(session_id, partitions) == wanted:
                return session_id

    async def ask(self, ctx: ExecutionContext, fact: Request) -> Accepted:
        """What the owner made of it; durable when it returns. Raises Draining, NotOwner, Unavailable, or the refusal."""
        if self._closed:
            raise Draining(retry_after_ms=1000)
        # A key that is on its way in this process: one of them does the work, all are answered. With another body it
        # goes by itself, for only the owner knows which of the two came first.
        running = self._joined.get(fact.claim)
        if running is None:
            running = self._joined[fact.claim] = asyncio.ensure_future(self._deliver(ctx, fact))
            running.add_done_callback(lambda done: self._forget(fact.claim, done))
        return await asyncio.shield(running)

    def _forget(self, claim: Claim, done: asyncio.Future[Accepted]) -> None:
        del self._joined[claim]
        if not done.cancelled():
            done.exception()  # it was told to whoever asked; a caller that left needs no warning

    async def _deliver(self, ctx: ExecutionContext, fact: Request) -> Accepted:
        lane = self._sessions.lane(ctx.session_id)
        if lane is not None and fact.reply is not None:
            lane.post(fact)
            try:
                return await fact.reply
            except Fenced:
                pass  # not committed: it goes to the new owner under the same key
        return await self._through_inbox(ctx, fact)

    async def _through_inbox(self, ctx: ExecutionContext, fact: Request) -> Accepted:
        payload = fact.request if isinstance(fact, Submitted) else fact.asked
        claim = fact.claim
        partition = self._sessions.partition(ctx.session_id)
        envelope = envelope_pb2.Envelope(
            event_id=self._ids("evt"),
            timestamp=timestamp(self._clock.now_us()),
            trace_id=ctx.trace_id,
            traceparent=ctx.traceparent,
            tenant_id=ctx.tenant_id,
            session_id=ctx.session_id,
            turn_id=fact.turn_id,
        )
        fill(envelope, payload)
        try:
            inbox_id = await self._leases.post(InboxItem(0, partition, claim, envelope.SerializeToString()))
            refused_at = refusal_key(claim, inbox_id)
            pause = _FIRST_LOOK_SECONDS
            async with asyncio.timeout(OWNER_SECONDS):
                while True:
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, _LOOK_SECONDS)
                    stored = await self._journal.find_claim(
                        claim.tenant_id, claim.principal, claim.rpc, claim.key
                    )
                    if stored is not None:
                        return outcome_of(claim, stored)
                    refused = await self._journal.find_claim(*refused_at)
                    if refused is not None:
                        raise refused_as(refused)
        except TimeoutError:
            raise NotOwner(retry_after_ms=1000) from None
        except JournalUnavailable:
            raise Unavailable(retry_after_ms=1000) from None
