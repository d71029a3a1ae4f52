"""The journal's seam: above it the runtime, below it Postgres or memory. The journal is the truth."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key and what its first request came to. `outcome` is opaque to the journal."""

    tenant_id: str
    principal: str
    rpc: str
    key: str
    digest: bytes
    outcome: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One event to append. Sequences of one turn are contiguous from 1; the writer sees to it."""

    turn_id: str
    sequence: int
    topic: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class TurnRow:
    """The projection of a turn, for lists and recovery. `phase`: queued, running, waiting, finished."""

    turn_id: str
    session_id: str
    tenant_id: str
    partition: int
    phase: str
    wake_at_us: int | None
    submitted_us: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What one decision of one session records: all of it is committed, or none."""

    partition: int
    epoch: int
    records: tuple[Record, ...] = ()
    turns: tuple[TurnRow, ...] = ()
    claim: Claim | None = None
    consumed: tuple[int, ...] = ()
    """Ids of the inbox rows that this entry answers."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it stands in the journal. Offsets of one partition start at 1 and have no gaps, but for what
    retention took away."""

    partition: int
    offset: int
    epoch: int
    turn_id: str
    sequence: int
    topic: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class InboxItem:
    """A request that a process which is not the owner accepted. `id` is 0 until it is stored."""

    id: int
    partition: int
    claim: Claim | None
    envelope: bytes


class Fenced(Exception):
    """The writer's epoch is not the partition's: another process owns it. Nothing was written."""


class Claimed(Exception):
    """The entry's idempotency key was taken before. Nothing was written; `claim` is the stored one."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(claim.key)
        self.claim = claim


class Rejected(Exception):
    """This entry breaks a rule of the journal (a sequence used twice, a broken row). Nothing was written."""


class JournalUnavailable(Exception):
    """The journal cannot be reached; whether a pending entry was committed has been found out: it was not."""


class NoPlace(Exception):
    """So many TRANSACTIONAL steps run in this process that no transaction could be lent in time. Nothing was begun."""


class Transaction(Protocol):
    """A database transaction lent to one TRANSACTIONAL tool. Leaving without `commit` rolls back."""

    @property
    def connection(self) -> Any:
        """The connection that the tool may use (asyncpg's for Postgres, None in memory)."""
        ...

    @property
    def lost(self) -> bool:
        """The connection is gone: nothing of this transaction was, or will be, committed."""
        ...

    async def commit(self, entry: Entry) -> None:
        """Append the entry and commit it with what the tool wrote. Raises as `Journal.append`."""
        ...


class Journal(Protocol):
    """Append and read. Every method may raise JournalUnavailable."""

    async def append(self, entry: Entry) -> None:
        """Commit the entry; durable when it returns.

        Entries of one partition commit in the order of the calls. Raises Fenced, Claimed or
        Rejected, and then nothing of the entry was written. Cancelling the call does not undo it.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction for one TRANSACTIONAL step. Raises NoPlace on entering, before a step's time to start is over."""
        ...

    async def read_turn(self, turn_id: str, after: int, limit: int) -> Sequence[Stored]:
        """Events of a turn with sequence > after, in order, at most limit."""
        ...

    async def read_turns(self, turn_ids: Sequence[str]) -> Sequence[Stored]:
        """All events of the turns, by partition and offset: for recovery."""
        ...

    async def read_partition(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """Events with offset > after, in order, at most limit: for consumers."""
        ...

    async def read_along(self, partition: int, after: int, limit: int) -> Sequence[Stored]:
        """As read_partition, for who keeps up with this process's appends: it may have them without asking the database,
        and then answers with them alone, though others may have appended behind them."""
        ...

    async def heads(self) -> dict[int, int]:
        """The last offset of each partition that has any event."""
        ...

    async def turn(self, turn_id: str) -> TurnRow | None:
        """The projection of one turn."""
        ...

    async def list_turns(
        self, *, tenant_id: str, session_id: str, phase: str, before: str, limit: int
    ) -> Sequence[TurnRow]:
        """Turns by id, newest first, with id < before when given; empty filters match all."""
        ...

    async def open_turns(self, partition: int) -> Sequence[TurnRow]:
        """Turns of the partition that have not finished, oldest first."""
        ...

    async def find_claim(self, tenant_id: str, principal: str, rpc: str, key: str) -> Claim | None:
        """What a key came to, if it was used."""
        ...

    async def put_blob(self, body: bytes) -> str:
        """Store a body under the hex SHA-256 of its bytes; durable when it returns."""
        ...

    async def get_blob(self, digest: str) -> bytes:
        """A stored body. Raises KeyError."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a partition. `clean` says that the owner before is known to be gone."""

    partition: int
    epoch: int
    owner: str
    address: str
    clean: bool = False


@dataclass(frozen=True, slots=True)
class Runtime:
    """A process that shares the partitions: how many it holds, and in how many seconds all that it has runs out."""

    held: int
    seconds: float = 0.0


class Leases(Protocol):
    """Who owns which partition, by database time. Lost leases show as Fenced at the next append."""

    async def acquire(self, owner: str, address: str, *, take_over: bool, most: int) -> Sequence[Lease]:
        """Take up to `most` partitions that nobody holds or whose lease ran out; each epoch grows by one.

        `take_over` takes held ones too, as clean: the caller knows that every earlier owner is dead. No other runtime
        is left then.
        """
        ...

    async def renew(self, owner: str) -> tuple[Sequence[Lease], Sequence[InboxItem]]:
        """Extend all leases of the owner by the lease time; answers what it still holds, and their inbox."""
        ...

    async def inbox(self, partitions: Sequence[int]) -> Sequence[InboxItem]:
        """What waits for the owner of these."""
        ...

    async def release(self, owner: str, partitions: Sequence[int] | None = None) -> None:
        """Give leases back, all unless told which; the next owner takes them as clean: nothing may run there now."""
        ...

    async def runtimes(self, owner: str, *, here: bool) -> Mapping[str, Runtime]:
        """The processes that share the partitions, by their names.

        `here`: the owner is one of them, from now on and for the lease time; else it is none any more.
        """
        ...

    async def holder(self, partition: int) -> Lease | None:
        """Who holds the partition now."""
        ...

    async def holders(self) -> Sequence[Lease]:
        """Who holds what now; partitions that nobody holds are not in it."""
        ...

    async def post(self, item: InboxItem) -> int:
        """Store a request for the owner; durable when it returns the id that it got."""
        ...
