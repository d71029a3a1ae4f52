"""The transaction of one TRANSACTIONAL tool: what it writes and the entry are committed together."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from kfm_server import failpoints
from kfm_server.journal.batch import answer, encode, read_back
from kfm_server.journal.checks import check_entry
from kfm_server.journal.faults import Fault, fault_of
from kfm_server.journal.pool import cut, gone, repeat
from kfm_server.journal.queries import query
from kfm_server.journal.tail import Tail
from kfm_server.ports.journal import Entry, JournalUnavailable, Rejected

_BEFORE = failpoints.declare("journal.transaction.before_commit")
_AFTER = failpoints.declare("journal.transaction.after_commit")


class PostgresTransaction:
    """Lent by `PostgresJournal.transaction`; `connection` is asyncpg's."""

    def __init__(
        self, pool: Any, connection: Any, tail: Tail, on_commit: Callable[[frozenset[int]], None]
    ) -> None:
        self.connection = connection
        self._tail = tail
        self.committed = False
        self._pool = pool
        self._on_commit = on_commit
        self._transaction = connection.transaction(isolation="read_committed")

    @property
    def lost(self) -> bool:
        """The connection is gone: the server rolls back what was not committed."""
        return not self.committed and gone(self.connection)

    async def begin(self) -> None:
        """Start it."""
        await self._transaction.start()

    async def rollback(self) -> None:
        """Undo everything, if it was not committed."""
        if not self.committed and not gone(self.connection):
            await self._transaction.rollback()

    async def commit(self, entry: Entry) -> None:
        """Append the entry and commit it with what the tool wrote. Raises as `Journal.append`."""
        check_entry(entry)
        asked, heads = False, dict[int, int]()
        try:
            # From here on a partition is locked: a server that freezes now must not hold it for ever.
            await self.connection.execute("set local idle_in_transaction_session_timeout = '5s'")
            rows = await self.connection.fetch(query("append"), *encode((entry,)))
            refused, heads = answer((entry,), rows)
            for error in refused.values():
                raise error
            failpoints.hit(_BEFORE)
            asked = True
            await self._transaction.commit()
        except Exception as error:
            await self._failed(entry, error, asked)
        self.committed = True
        failpoints.hit(_AFTER)
        if heads:
            self._tail.add((entry,), heads)
        self._on_commit(frozenset((entry.partition,)))

    async def _failed(self, entry: Entry, error: Exception, asked: bool) -> None:
        """Returns only when it turns out that the entry was committed."""
        if getattr(error, "sqlstate", None) is None and not _from_driver(error):
            raise error
        fault = fault_of(error)
        if fault is Fault.ROW:
            raise Rejected(str(error)) from error
        if fault is Fault.BUSY or not asked:
            raise JournalUnavailable(repr(error)) from error
        cut(self.connection)
        while True:  # it was asked to commit: no answer but the right one will do
            try:
                there = await repeat(self._pool, lambda c: read_back(c, (entry,)))
            except JournalUnavailable:
                await asyncio.sleep(random.uniform(0.2, 0.6))
            else:
                break
        if not there[0]:
            raise JournalUnavailable(repr(error)) from error


def _from_driver(error: Exception) -> bool:
    return fault_of(error) is Fault.LOST or type(error).__module__.startswith("asyncpg")
