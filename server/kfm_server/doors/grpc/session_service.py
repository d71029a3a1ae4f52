"""SessionService: translates between its messages and the history of sessions."""

import re
from collections.abc import Awaitable
from typing import TypeVar

from kfm.catalogue.errors import PageTokenInvalid, SessionNotFound, Unavailable
from kfm.session.v1 import session_service_pb2

from kfm_server.doors.grpc.interceptor import Call
from kfm_server.doors.grpc.validation import check_text
from kfm_server.ports.history import Exchange, SessionHistory, SessionSummary
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.turns.times import timestamp

_pb = session_service_pb2
_DEFAULT_PAGE = 50
_OFFSET = re.compile(r"[0-9]{1,18}")
_TURN_ID = re.compile(r"turn_[0-9A-Za-z_-]{1,60}")
T = TypeVar("T")


class SessionService:
    """The bodies of kfm.session.v1.SessionService, by the names of its RPCs."""

    SERVICE = "kfm.session.v1.SessionService"

    def __init__(self, history: SessionHistory) -> None:
        """A session of another tenant is none."""
        self._history = history

    async def GetSession(self, call: Call, request: _pb.GetSessionRequest) -> _pb.GetSessionResponse:
        """One session."""
        session = await self._session(call, request.session_id)
        return _pb.GetSessionResponse(session=_show(session))

    async def ListSessions(self, call: Call, request: _pb.ListSessionsRequest) -> _pb.ListSessionsResponse:
        """A page, the session with the latest turn first."""
        before = _position("sessions|", request.page_token, _TURN_ID)
        size = request.page_size or _DEFAULT_PAGE
        found = await _read(self._history.sessions(call.ctx.tenant_id, before, size + 1))
        more = f"sessions|{found[size - 1].last_turn_id}" if len(found) > size else ""
        return _pb.ListSessionsResponse(sessions=[_show(s) for s in found[:size]], next_page_token=more)

    async def ListMessages(self, call: Call, request: _pb.ListMessagesRequest) -> _pb.ListMessagesResponse:
        """A page of turns, each with its message and its answer."""
        prefix = f"{request.session_id}|"
        after = int(_position(prefix, request.page_token, _OFFSET) or 0)
        await self._session(call, request.session_id)
        exchanges, more = await _read(
            self._history.messages(
                call.ctx.tenant_id, request.session_id, after, request.page_size or _DEFAULT_PAGE
            )
        )
        return _pb.ListMessagesResponse(
            messages=[message for exchange in exchanges for message in _messages(exchange)],
            next_page_token="" if more is None else f"{prefix}{more}",
        )

    async def _session(self, call: Call, session_id: str) -> SessionSummary:
        session = await _read(self._history.session(call.ctx.tenant_id, session_id))
        if session is None:
            raise SessionNotFound(metadata={"session_id": session_id})
        return session


async def _read(work: Awaitable[T]) -> T:
    try:
        return await work
    except JournalUnavailable:
        raise Unavailable(retry_after_ms=1000) from None


def _position(prefix: str, token: str, form: re.Pattern[str]) -> str:
    """Where a page begins; empty at the first."""
    check_text("page_token", token)
    position = token.removeprefix(prefix)
    if token and (position == token or not form.fullmatch(position)):
        raise PageTokenInvalid
    return position


def _show(session: SessionSummary) -> session_service_pb2.Session:
    return _pb.Session(
        session_id=session.session_id,
        turns=session.turns,
        created_at=timestamp(session.created_us),
        updated_at=timestamp(session.updated_us),
        last_turn_id=session.last_turn_id,
    )


def _messages(exchange: Exchange) -> tuple[session_service_pb2.Message, session_service_pb2.Message]:
    said = _pb.Message(
        turn_id=exchange.turn_id,
        role=_pb.ROLE_USER,
        parts=exchange.input,
        said_at=timestamp(exchange.said_us),
    )
    answer = _pb.Message(
        turn_id=exchange.turn_id,
        role=_pb.ROLE_AGENT,
        parts=exchange.output,
        said_at=timestamp(exchange.answered_us),
        outcome=exchange.outcome,
        error=exchange.error,
    )
    return said, answer
