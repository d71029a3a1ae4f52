"""`kfm.dead_letters`: messages that a consumer could not take. For operators."""

from xenocomm._gen.types import DeadLetter
from xenocomm.arguments import new_key
from xenocomm.paging import Listing, Page
from xenocomm.transport import Transport


class DeadLetters:
    """Dead letters of one server."""

    def __init__(self, transport: Transport) -> None:
        """Made by Client."""
        self._transport = transport

    def list(self, *, group: str = "", page_size: int = 0) -> Listing[DeadLetter]:
        """All, oldest first, without their bytes."""

        async def fetch(token: str, size: int) -> Page[DeadLetter]:
            fields = {"group": group, "page_size": size, "page_token": token}
            answer = await self._transport.call("AdminService.ListDeadLetters", fields)
            return Page([DeadLetter.from_pb(m) for m in answer.dead_letters], answer.next_page_token)

        return Listing(fetch, page_size)

    async def get(self, dead_letter_id: str) -> DeadLetter:
        """One, with its bytes. DeadLetterNotFound."""
        answer = await self._transport.call("AdminService.GetDeadLetter", {"dead_letter_id": dead_letter_id})
        return DeadLetter.from_pb(answer.dead_letter)

    async def replay(self, dead_letter_id: str, *, idempotency_key: str = "") -> None:
        """Hand it to its consumer again and lift the hold on its session."""
        await self._end("ReplayDeadLetter", dead_letter_id, idempotency_key)

    async def drop(self, dead_letter_id: str, *, idempotency_key: str = "") -> None:
        """Give it up and lift the hold on its session."""
        await self._end("DropDeadLetter", dead_letter_id, idempotency_key)

    async def _end(self, rpc: str, dead_letter_id: str, key: str) -> None:
        fields = {"dead_letter_id": dead_letter_id, "idempotency_key": key or new_key()}
        await self._transport.call(f"AdminService.{rpc}", fields)
