"""Brings to watchers here what the owner of their turn tells: one stream for each turn that is watched away from its owner.

What comes is published as if the turn ran here, so that watchers need not know. While the owner is away they read the journal.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from kfm_server.ports.journal import JournalUnavailable, Lease, Leases
from kfm_server.ports.owners import OwnerAway, Owners
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.sessions import Sessions

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.25
"""Between two looks at who owns the turn; and, while nobody can be reached, at the journal."""
LEASE_SECONDS = 1.0
"""How long an answer of the lease table is taken as true."""


@dataclass(eq=False, slots=True)
class _Feed:
    turn_id: str
    partition: int
    last: int
    """The last sequence that was published."""
    readers: int = 0
    task: asyncio.Task[None] | None = None


class Feeds:
    """One per process."""

    def __init__(
        self,
        *,
        leases: Leases,
        sessions: Sessions,
        broadcaster: Broadcaster,
        owner: str,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        owners: Owners | None = None,
    ) -> None:
        """`owner` is this process in the lease table. Without `owners` watchers read the journal."""
        self._leases = leases
        self._sessions = sessions
        self._broadcaster = broadcaster
        self._owner = owner
        self._spawn = spawn
        self._owners = owners
        self._feeds: dict[str, _Feed] = {}
        self._holders: dict[int, tuple[float, Lease | None]] = {}

    @contextmanager
    def feed(self, turn_id: str, partition: int, after: int) -> Generator[None]:
        """Inside, the broadcaster tells of the turn, which runs elsewhere: at the latest from sequence `after` on."""
        feed = self._feeds.get(turn_id)
        if feed is None:
            feed = self._feeds[turn_id] = _Feed(turn_id, partition, after)
            feed.task = self._spawn(self._run(feed), f"feed {turn_id}")
        feed.readers += 1
        try:
            yield
        finally:
            feed.readers -= 1
            if not feed.readers:
                del self._feeds[turn_id]
                assert feed.task is not None
                feed.task.cancel()

    async def _run(self, feed: _Feed) -> None:
        """Keep a relay to whoever owns the turn. A frozen owner's stream stands still: only the lease tells."""
        relay: asyncio.Task[None] | None = None
        epoch, was_here = 0, False
        async with asyncio.TaskGroup() as tasks:
            while True:
                here = feed.partition in self._sessions.owned
                lease = None if here else await self._holder(feed.partition)
                if lease is not None and lease.owner == self._owner:
                    lease = None  # taken, not loaded yet: relayed to itself, all would be told without end
                if relay is not None and (relay.done() or lease is None or lease.epoch != epoch):
                    relay.cancel()
                    relay = None
                if relay is None and lease is not None and lease.address and self._owners is not None:
                    epoch = lease.epoch
                    relay = tasks.create_task(
                        self._relay(feed, lease.address, self._owners), name=f"relay {feed.turn_id}"
                    )
                elif relay is None and not (here and was_here):
                    self._broadcaster.behind(feed.turn_id)
                was_here = here
                await asyncio.sleep(LOOK_SECONDS)

    async def _relay(self, feed: _Feed, address: str, owners: Owners) -> None:
        try:
            async with aclosing(owners.watch(address, feed.turn_id, feed.last)) as stream:
                async for updates in stream:
                    for update in updates:
                        if update.HasField("event"):
                            feed.last = max(feed.last, update.event.sequence)
                        self._broadcaster.pass_on(feed.turn_id, update)
        except OwnerAway as away:
            log.info("owner_away", turn_id=feed.turn_id, error=str(away))
        finally:
            self._broadcaster.behind(feed.turn_id)  # what did not come through is in the journal

    async def _holder(self, partition: int) -> Lease | None:
        now = asyncio.get_running_loop().time()
        until, lease = self._holders.get(partition, (0.0, None))
        if until < now:
            self._holders[partition] = (
                now + LEASE_SECONDS,
                lease,
            )  # one asks, the others go by the old answer
            try:
                lease = await self._leases.holder(partition)
            except JournalUnavailable:
                return lease
            self._holders[partition] = (now + LEASE_SECONDS, lease)
        return lease
