"""The conversation of a session, decoded from the first and the last event of its turns."""

from collections.abc import Sequence

from kfm.event.v1 import turn_events_pb2 as ev

from kfm_server.ports.history import EndedTurn, Exchange, SessionRows, SessionSummary
from kfm_server.ports.journal import Journal, Stored
from kfm_server.runtime.history import BrokenHistory, Envelope, decode_event
from kfm_server.turns.times import micros

_PAGE = 50
_LAST_OFFSET = 2**63 - 1


class Conversation:
    """The port SessionHistory over a journal and what its store answers about sessions."""

    def __init__(self, journal: Journal, rows: SessionRows) -> None:
        self._journal = journal
        self._rows = rows

    async def before(self, tenant_id: str, session_id: str, turn_id: str, limit: int) -> list[Exchange]:
        """As the port says."""
        offset = await self._began(turn_id)
        found: list[Exchange] = []
        replaced: set[str] = set()
        """Turns in whose place a fork stands: it ended later, so it is met first."""
        while len(found) < limit:
            turns = await self._rows.ended_before(tenant_id, session_id, offset, _PAGE)
            for turn in turns:
                exchange, parent = _read(turn)
                if exchange is None or exchange.turn_id in replaced:
                    continue
                if parent and exchange.outcome == ev.OUTCOME_SUCCEEDED:
                    replaced.add(parent)
                found.append(exchange)
            if len(turns) < _PAGE:
                break
            offset = turns[-1].last.offset
        return found[:limit][::-1]

    async def messages(
        self, tenant_id: str, session_id: str, after: int, limit: int
    ) -> tuple[list[Exchange], int | None]:
        """As the port says."""
        turns = await self._rows.ended_after(tenant_id, session_id, after, limit + 1)
        page = turns[:limit]
        read = [_read(turn)[0] for turn in page]
        more = page[-1].last.offset if len(turns) > limit else None
        return [exchange for exchange in read if exchange is not None], more

    async def session(self, tenant_id: str, session_id: str) -> SessionSummary | None:
        """As the port says."""
        return await self._rows.session(tenant_id, session_id)

    async def sessions(self, tenant_id: str, before: str, limit: int) -> Sequence[SessionSummary]:
        """As the port says."""
        return await self._rows.sessions(tenant_id, before, limit)

    async def _began(self, turn_id: str) -> int:
        """The offset at which a turn began to run, or the one it was forked from; past all if it did not yet."""
        began, parent = await self._start(turn_id)
        while parent:
            of_parent, parent = await self._start(parent)
            began = of_parent or began
        return began or _LAST_OFFSET

    async def _start(self, turn_id: str) -> tuple[int, str]:
        """The offset of a turn's start, 0 if there is none, and the turn that it was forked from."""
        after, parent = 0, ""
        while events := await self._journal.read_turn(turn_id, after, _PAGE):
            for stored in events:
                payload = _decode(stored)[1]
                if isinstance(payload, ev.TurnEvent):
                    parent = payload.parent_turn_id
                elif isinstance(payload, ev.TurnStateEvent) and payload.change == ev.TURN_CHANGE_STARTED:
                    return stored.offset, parent
            after = events[-1].sequence
        return 0, parent


def _decode(stored: Stored) -> tuple[Envelope, object]:
    try:
        return decode_event(stored.envelope)
    except Exception as error:
        raise BrokenHistory(stored, error) from error


def _read(turn: EndedTurn) -> tuple[Exchange | None, str]:
    """What was said in a turn, None if it was dropped, and the turn that it was forked from."""
    (said, request), (answered, end) = _decode(turn.first), _decode(turn.last)
    if not isinstance(request, ev.TurnEvent):
        raise BrokenHistory(turn.first, TypeError(said.type))
    if not isinstance(end, ev.TurnStateEvent):
        raise BrokenHistory(turn.last, TypeError(answered.type))
    if end.dropped:
        return None, request.parent_turn_id
    exchange = Exchange(
        turn_id=said.turn_id,
        input=tuple(request.input),
        output=tuple(end.output) if end.outcome == ev.OUTCOME_SUCCEEDED else (),
        outcome=end.outcome,
        error=end.error if end.HasField("error") else None,
        said_us=micros(said.timestamp),
        answered_us=micros(answered.timestamp),
        ended=turn.last.offset,
    )
    return exchange, request.parent_turn_id
