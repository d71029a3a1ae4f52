"""Entries as the arrays of `kfm.append`, and its answer as verdicts."""

from collections.abc import Sequence
from typing import Any

from kfm_server.journal.queries import query
from kfm_server.ports.journal import Claim, Claimed, Entry, Fenced

_WIDTHS = (2, 7, 5, 7, 2)


def encode(entries: Sequence[Entry]) -> list[list[Any]]:
    """The arguments of the named query `append`, in order."""
    groups: list[list[tuple[Any, ...]]] = [[] for _ in _WIDTHS]
    heads, claims, records, turns, inbox = groups
    for n, entry in enumerate(entries, 1):
        heads.append((entry.partition, entry.epoch))
        c = entry.claim
        if c is not None:
            claims.append((n, c.tenant_id, c.principal, c.rpc, c.key, c.digest, c.outcome))
        for r in entry.records:
            records.append((n, r.turn_id, r.sequence, r.topic, r.envelope))
        for t in entry.turns:
            turns.append((n, t.turn_id, t.session_id, t.tenant_id, t.phase, t.wake_at_us, t.submitted_us))
        for id in entry.consumed:
            inbox.append((n, id))
    arguments: list[list[Any]] = []
    for width, rows in zip(_WIDTHS, groups, strict=True):
        arguments.extend(map(list, zip(*rows, strict=True)) if rows else ([] for _ in range(width)))
    return arguments


def answer(
    entries: Sequence[Entry], rows: Sequence[Any]
) -> tuple[dict[int, Fenced | Claimed], dict[int, int]]:
    """The answer of `append`: what was not written, by index, and why; and the heads of the partitions after it."""
    refused: dict[int, Fenced | Claimed] = {}
    heads: dict[int, int] = {}
    for number, claimed, digest, outcome, head in rows:
        if head is not None:
            heads[number] = head
            continue
        entry = entries[number - 1]
        claim = entry.claim
        if claimed and claim is not None:
            stored = Claim(claim.tenant_id, claim.principal, claim.rpc, claim.key, digest, outcome)
            refused[number - 1] = Claimed(stored)
        else:
            refused[number - 1] = Fenced(entry.partition)
    return refused, heads


async def read_back(connection: Any, entries: Sequence[Entry]) -> list[bool]:
    """Whether each entry was committed, asked after an unknown outcome.

    Takes the locks of the partitions, in order: an append that is still going on ends first.
    """
    async with connection.transaction():
        for partition in sorted({entry.partition for entry in entries}):
            await connection.fetchval(query("lock_partition"), partition)
        return [await _committed(connection, entry) for entry in entries]


async def _committed(connection: Any, entry: Entry) -> bool:
    for record in entry.records:
        if record.turn_id:
            epoch = await connection.fetchval(query("find_record"), record.turn_id, record.sequence)
            return epoch == entry.epoch
    claim = entry.claim
    if claim is not None:
        row = await connection.fetchrow(
            query("find_claim"), claim.tenant_id, claim.principal, claim.rpc, claim.key
        )
        return row is not None and (row["digest"], row["outcome"]) == (claim.digest, claim.outcome)
    for record in entry.records:
        return await connection.fetchval(query("find_outside"), entry.partition, entry.epoch, record.envelope)
    return False  # rows of turns and the inbox alone: writing them again changes nothing
