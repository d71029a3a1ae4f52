"""Requests that lead to no event: they are refused, or taken out of the inbox for another reason."""

from kfm.catalogue.errors import KfmError

from kfm_server.ports.journal import Claim, Claimed, Entry, Journal
from kfm_server.runtime.facts import Request, fail, refusal, settle_claim
from kfm_server.runtime.lane_parts import Owner


async def refuse(journal: Journal, owner: Owner, request: Request, refused: KfmError) -> None:
    """Nothing changes. A request from the inbox leaves its refusal for whoever accepted it.

    What was done under this key before may be why it is refused now (a turn cancelled, a session made busy):
    then the stored outcome is the answer.
    """
    claim = request.claim
    stored = await journal.find_claim(claim.tenant_id, claim.principal, claim.rpc, claim.key)
    if request.inbox_id:
        mine = None if stored is not None else refusal(claim, request.inbox_id, refused)
        try:
            await consume(journal, owner, request.inbox_id, mine)
        except Claimed:  # it was refused before, and came again: its row was read before that
            await consume(journal, owner, request.inbox_id)
    if stored is not None:
        settle_claim(request, stored)
        return
    fail(request.reply, refused)


async def consume(journal: Journal, owner: Owner, inbox_id: int, claim: Claim | None = None) -> None:
    """Take a row out of the inbox; `claim` is what its asker is told."""
    await journal.append(Entry(owner.partition, owner.epoch, (), (), claim, (inbox_id,)))
