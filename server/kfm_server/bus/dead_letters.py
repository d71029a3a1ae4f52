"""The desk for dead letters: what operators see and decide of messages that a consumer could not take."""

import re
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp
from kfm.admin.v1.admin_service_pb2 import DeadLetter
from kfm.catalogue.errors import DeadLetterNotFound, IdempotencyConflict, PageTokenInvalid, Unavailable
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.system_events_pb2 import DeadLetterEvent

from kfm_server.context import ExecutionContext
from kfm_server.ports.bus import BusUnavailable, Letter, LetterStore
from kfm_server.ports.journal import Claim

_PLACE = re.compile(r"(\d{1,19})\.(evt_[0-9A-Za-z]{1,60})")
_Letters = list[DeadLetter]


class DeadLetterDesk:
    """Lists, shows, replays and drops. A tenant sees its own letters only; one that is settled is no longer found.

    `decided` is called after a replay or a drop, so that the consumer need not wait for its poll.
    Every method raises Unavailable when the store is away.
    """

    def __init__(self, letters: LetterStore, decided: Callable[[], None] | None = None) -> None:
        self._letters = letters
        self._decided = decided

    async def list(
        self, ctx: ExecutionContext, group: str, page_size: int, page_token: str
    ) -> tuple[_Letters, str]:
        """A page of open letters, oldest first, without bytes; and the next page's token. Raises PageTokenInvalid."""
        after, filters = (0, ""), f"{group}|"
        if page_token:
            place = _PLACE.fullmatch(page_token.removeprefix(filters))
            if place is None or not page_token.startswith(filters) or int(place[1]) >= 2**63:
                raise PageTokenInvalid
            after = (int(place[1]), place[2])
        try:
            found = await self._letters.letters(ctx.tenant_id, group, after, page_size + 1)
        except BusUnavailable:
            raise Unavailable(retry_after_ms=1000) from None
        page = found[:page_size]
        more = len(found) > page_size
        token = f"{filters}{page[-1].created_us}.{page[-1].id}" if more and page else ""
        return [_show(letter, whole=False) for letter in page], token

    async def get(self, ctx: ExecutionContext, dead_letter_id: str) -> DeadLetter:
        """One that is open, with its bytes. Raises DeadLetterNotFound."""
        try:
            letter = await self._letters.letter(ctx.tenant_id, dead_letter_id)
        except BusUnavailable:
            raise Unavailable(retry_after_ms=1000) from None
        if letter is None:
            raise DeadLetterNotFound
        return _show(letter, whole=True)

    async def replay(
        self, ctx: ExecutionContext, dead_letter_id: str, key: str, digest: bytes, rpc: str
    ) -> None:
        """Deliver it again, then what was parked behind it. Raises DeadLetterNotFound, IdempotencyConflict."""
        await self._settle(ctx, dead_letter_id, key, digest, rpc, drop=False)

    async def drop(
        self, ctx: ExecutionContext, dead_letter_id: str, key: str, digest: bytes, rpc: str
    ) -> None:
        """Give it up and deliver what was parked behind it. Raises DeadLetterNotFound, IdempotencyConflict."""
        await self._settle(ctx, dead_letter_id, key, digest, rpc, drop=True)

    async def _settle(
        self, ctx: ExecutionContext, id: str, key: str, digest: bytes, rpc: str, *, drop: bool
    ) -> None:
        claim = Claim(ctx.tenant_id, ctx.principal, rpc, key, digest, b"")
        try:
            stored = await self._letters.settle(claim, id, drop=drop)
        except BusUnavailable:
            raise Unavailable(retry_after_ms=1000) from None
        if stored is None:
            raise DeadLetterNotFound
        if stored != digest:
            raise IdempotencyConflict
        if self._decided is not None:
            self._decided()


def _show(letter: Letter, *, whole: bool) -> DeadLetter:
    event = DeadLetterEvent.FromString(Envelope.FromString(letter.envelope).payload.value)
    return DeadLetter(
        dead_letter_id=letter.id,
        group=letter.group,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        session_id=letter.session_id,
        error=event.error,
        created_at=Timestamp(
            seconds=letter.created_us // 1_000_000, nanos=letter.created_us % 1_000_000 * 1000
        ),
        original=event.original if whole else b"",
    )
