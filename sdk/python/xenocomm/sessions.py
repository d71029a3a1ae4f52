"""`kfm.sessions`: conversations, and what was said in them."""

from xenocomm._gen.types import Message, Session
from xenocomm.paging import Listing, Page
from xenocomm.transport import Transport


class Sessions:
    """Sessions of one server."""

    def __init__(self, transport: Transport) -> None:
        """Made by Client."""
        self._transport = transport

    async def get(self, session_id: str) -> Session:
        """What is known of a session. SessionNotFound."""
        answer = await self._transport.call("SessionService.GetSession", {"session_id": session_id})
        return Session.from_pb(answer.session)

    def list(self, *, page_size: int = 0) -> Listing[Session]:
        """All sessions, the one with the latest turn first."""

        async def fetch(token: str, size: int) -> Page[Session]:
            fields = {"page_token": token, "page_size": size}
            answer = await self._transport.call("SessionService.ListSessions", fields)
            return Page([Session.from_pb(s) for s in answer.sessions], answer.next_page_token)

        return Listing(fetch, page_size)

    def messages(self, session_id: str, *, page_size: int = 0) -> Listing[Message]:
        """What was said, oldest first: message and answer of each turn that ended. SessionNotFound.

        `page_size` counts turns.
        """

        async def fetch(token: str, size: int) -> Page[Message]:
            fields = {"session_id": session_id, "page_token": token, "page_size": size}
            answer = await self._transport.call("SessionService.ListMessages", fields)
            return Page([Message.from_pb(m) for m in answer.messages], answer.next_page_token)

        return Listing(fetch, page_size)
