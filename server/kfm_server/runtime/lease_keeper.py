"""Keeps the leases of this process: takes its share of the partitions and no more, renews, notices what was lost, has them loaded and their inbox read."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from kfm_server.clock import Clock
from kfm_server.ports.journal import Fenced, InboxItem, JournalUnavailable, Lease, Leases
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.lane_attempts import stopped
from kfm_server.runtime.sessions import Dropped, OwnedPartition, Sessions
from kfm_server.runtime.sharing import beyond, share

log = structlog.get_logger(__name__)

LEASE_SECONDS = 3.0
RENEW_SECONDS = 1.0
RETRY_SECONDS = 0.1
"""After a renewal that failed: nothing but PURE steps starts from the database's return to the next one."""
MARGIN_SECONDS = 0.5
"""An effect starts only while the lease has this much left, by the monotonic clock."""
ANSWER_SECONDS = 0.75
"""A renewal that takes longer says that the database is away: together with RENEW_SECONDS below two seconds."""
QUIET_SECONDS = 0.02
"""Between two looks for a moment of quiet in a partition that is to be handed over."""
START_SECONDS = 5.0
"""How long `start` loads what it took; the rest is loaded while the process serves already."""


class LeaseKeeper:
    """One per process. `on_serving` is told whether the database answers. One that does not own takes no partitions.

    Renewing waits for nothing but the leases' table: loading and reading the inbox go on beside it. A process that is
    to end takes nothing, and gives back early what nothing runs in. What still runs is never given back: its lease
    runs out, so that the next owner does not take it as clean.
    """

    def __init__(
        self,
        *,
        leases: Leases,
        sessions: Sessions,
        broadcaster: Broadcaster,
        clock: Clock,
        owner: str,
        address: str,
        on_serving: Callable[[bool], None],
        owns: bool = True,
    ) -> None:
        self._leases = leases
        self._sessions = sessions
        self._broadcaster = broadcaster
        self._clock = clock
        self._owner = owner
        self.address = address
        self._on_serving = on_serving
        self._owns = owns
        self._here = False
        self._share = 0
        self._surplus = 0
        self._shared_at = float("-inf")
        self._gone: asyncio.TimerHandle | None = None
        self._table = asyncio.Lock()
        """Held while leases change hands: what is being given back is not to be found held, and begun again."""
        self._too_many = asyncio.Event()
        self._valid_until: dict[int, float] = {}
        self._wake = asyncio.Event()
        self._load_more = asyncio.Event()
        self._inbox: Sequence[InboxItem] = ()
        self._inbox_read = asyncio.Event()
        self._posted = False
        self._seen: dict[int, set[int]] = {}
        self._left: dict[int, Dropped] = {}
        """Partitions whose lease may still be ours, and that were dropped."""

    async def start(self, *, take_over: bool) -> None:
        """Take its share of what is free, or everything if every earlier owner is known to be dead; load it, for START_SECONDS."""
        if self._owns:
            if take_over:
                await self._acquire(self._sessions.partitions, take_over=True)
            await self._share_out()
        self._on_serving(True)
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(self._keep_renewing(), name="renewing")
            await self._load(self._clock.monotonic() + START_SECONDS)
            renewing.cancel()

    async def run(self) -> None:
        """Renew, load and read until cancelled."""
        self._load_more.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_renewing(), name="renewing")
            tasks.create_task(self._keep_loading(), name="loading")
            tasks.create_task(self._keep_reading(), name="inbox")
            tasks.create_task(self._keep_handing_over(), name="handing over")

    async def _keep_renewing(self) -> None:
        pause, away = RENEW_SECONDS, False
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            # Only told, not cut short: a database that was frozen answers when it comes back.
            late = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._on_serving, False)
            try:
                async with self._table:
                    await self._renew()
                    if self._sessions.holding:
                        await self._leave()
                    elif self._owns:
                        await self._share_out()
            except JournalUnavailable as gone:
                self._on_serving(False)
                if not away:
                    log.warning("lease_renewal_failed", error=str(gone))
                pause, away = RETRY_SECONDS, True
            else:
                self._on_serving(True)
                pause, away = RENEW_SECONDS, False
            finally:
                late.cancel()

    async def _keep_loading(self) -> None:
        while True:
            await self._load_more.wait()
            self._load_more.clear()
            await self._load()

    async def _keep_reading(self) -> None:
        while True:
            await self._inbox_read.wait()
            self._inbox_read.clear()
            try:
                items = await self._waiting()
            except JournalUnavailable as gone:
                log.warning("inbox_not_read", error=str(gone))
                continue
            waiting = {item.id for item in items}
            for partition, seen in self._seen.items():
                self._seen[partition] = seen & waiting
            try:
                for item in items:
                    seen = self._seen.setdefault(item.partition, set())
                    if item.id not in seen and await self._sessions.consume(item):
                        seen.add(item.id)
            except JournalUnavailable as gone:
                log.warning("inbox_not_read", error=str(gone))

    async def _keep_handing_over(self) -> None:
        """Give the surplus back at the moments in which nothing runs in a partition, which may be short."""
        while True:
            await self._too_many.wait()
            try:
                async with self._table:
                    await self._hand_over()
            except JournalUnavailable as gone:
                log.warning("not_handed_over", error=str(gone))
            await asyncio.sleep(QUIET_SECONDS)

    async def _waiting(self) -> Sequence[InboxItem]:
        if not self._posted:
            return self._inbox  # as the renewal found it
        self._posted = False
        return await self._leases.inbox(tuple(self._sessions.owned))

    def wake(self) -> None:
        """Look at the inbox, and at holds that were released, now."""
        self._wake.set()

    def posted(self) -> None:
        """Somebody posted to the inbox, or gave leases back: whoever has its share needs to read only."""
        if self._held < self._share:
            self.wake()
        elif self._held:
            self._posted = True
            self._inbox_read.set()

    async def release(self) -> None:
        """Give everything back in which nothing runs any more; what has not ended in time runs out."""
        for partition in (*self._sessions.owned, *self._sessions.taking):
            self._lose(self._sessions.owner(partition))
        await stopped(task for left in self._left.values() for task in left.tasks)
        await self._leave()
        if self._left:
            log.warning("leases_left_to_run_out", partitions=sorted(self._left))

    async def _leave(self) -> None:
        """This process is to end: the others share without it."""
        if self._here:
            await self._leases.runtimes(self._owner, here=False)
            self._here = False
        self._surplus = 0
        self._too_many.clear()
        await self._give_back((*self._sessions.at_rest(), *self._left))

    async def _share_out(self) -> None:
        """Take what is free up to this process's share; what is beyond it, and others lack, is handed over."""
        asked_at = self._clock.monotonic()
        if asked_at - self._shared_at >= RENEW_SECONDS / 2:
            runtimes = await self._leases.runtimes(self._owner, here=True)
            self._here, self._shared_at = True, asked_at
            held = {name: runtime.held for name, runtime in runtimes.items()} | {self._owner: self._held}
            self._share = share(self._owner, held, self._sessions.partitions)
            self._surplus = beyond(self._owner, held, self._sessions.partitions)
            await self._hand_over()
            self._look_when_gone([r.seconds for name, r in runtimes.items() if name != self._owner])
        if self._held < self._share:
            await self._acquire(self._share - self._held)

    async def _hand_over(self) -> None:
        """Give as much of the surplus back as nothing runs in."""
        quiet = self._sessions.at_rest()[: self._surplus]
        self._surplus -= len(quiet)
        if self._surplus:
            self._too_many.set()
        else:
            self._too_many.clear()
        await self._give_back(quiet)

    def _look_when_gone(self, seconds: list[float]) -> None:
        """Be there when the time of one that has missed a renewal runs out: its partitions wait for nobody's next round."""
        if self._gone is not None:
            self._gone.cancel()
            self._gone = None
        soonest = min(seconds, default=RENEW_SECONDS)
        if soonest < RENEW_SECONDS:
            self._gone = asyncio.get_running_loop().call_later(soonest + 0.01, self._look)

    def _look(self) -> None:
        self._shared_at = float("-inf")
        self.wake()

    @property
    def _held(self) -> int:
        return len(self._sessions.owned) + len(self._sessions.taking)

    async def _give_back(self, partitions: Sequence[int]) -> None:
        """Drop these, and return the leases of those in which nothing runs any more."""
        for partition in partitions:
            self._lose(self._sessions.owner(partition))
        clean = [partition for partition in partitions if self._left[partition].clean]
        if clean:
            await self._leases.release(self._owner, clean)
        for partition in clean:
            self._left.pop(partition, None)

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        held, self._inbox = await self._leases.renew(self._owner)
        epochs = {lease.partition: lease.epoch for lease in held}
        for partition in (*self._sessions.owned, *self._sessions.taking):
            owner = self._sessions.owner(partition)
            if owner is not None and epochs.get(partition) == owner.epoch:
                self._valid_until[partition] = asked_at + LEASE_SECONDS - MARGIN_SECONDS
            else:
                self._lose(owner)
        self._left = {p: left for p, left in self._left.items() if epochs.get(p) == left.epoch}
        for lease in held:
            if self._sessions.owner(lease.partition) is None and not self._sessions.holding:
                self._begin(lease, asked_at)
        self._inbox_read.set()
        self._load_more.set()

    async def _acquire(self, most: int, *, take_over: bool = False) -> None:
        asked_at = self._clock.monotonic()
        taken = await self._leases.acquire(self._owner, self.address, take_over=take_over, most=most)
        for lease in taken:
            self._begin(lease, asked_at)

    def _begin(self, lease: Lease, asked_at: float) -> None:
        """Have a partition loaded."""
        self._lose(self._sessions.owner(lease.partition))
        self._seen.pop(lease.partition, None)
        self._valid_until[lease.partition] = asked_at + LEASE_SECONDS - MARGIN_SECONDS
        owner = OwnedPartition(
            lease.partition,
            lease.epoch,
            lambda partition: self._valid_until.get(partition, 0.0),
            self._clock.monotonic,
            self._lose,
        )
        self._sessions.taking[lease.partition] = lease, owner
        self._load_more.set()

    async def _load(self, until: float = float("inf")) -> None:
        """Load what was taken, and what a person let go; whatever cannot be is left for the next time."""
        try:
            for partition in list(self._sessions.taking):
                if self._sessions.holding or self._clock.monotonic() >= until:
                    return
                if taking := self._sessions.taking.get(partition):
                    await self._take(*taking)
                    self._wake.set()  # its inbox has not been read
            await self._sessions.look_again()
        except JournalUnavailable as gone:
            log.warning("loading_failed", error=str(gone))

    async def _take(self, lease: Lease, owner: OwnedPartition) -> None:
        left = self._left.get(lease.partition)
        if left is not None and left.epoch == lease.epoch:
            # It ran here and was dropped for a failure of our own: it is clean once all of it has ended.
            await stopped(left.tasks)
            try:
                # An append that was under way when it was dropped comes before this one: what is read then is all.
                await self._sessions.barrier(lease)
            except Fenced:
                self._lose(owner)
            lease = replace(lease, clean=left.clean)
        if self._sessions.owner(lease.partition) is owner:
            self._left.pop(lease.partition, None)
            await self._sessions.take(lease, owner)

    def _lose(self, owner: OwnedPartition | None) -> None:
        """Forget a partition; it comes back, if at all, from the journal."""
        if owner is None or self._sessions.owner(owner.partition) is not owner:
            return
        partition = owner.partition
        log.info("partition_dropped", partition=partition, epoch=owner.epoch)
        self._valid_until.pop(partition, None)
        dropped, before = self._sessions.drop(partition), self._left.get(partition)
        if before is not None and before.epoch == dropped.epoch:
            settled = before.settled and dropped.settled
            dropped = replace(dropped, tasks=(*before.tasks, *dropped.tasks), settled=settled)
        self._left[partition] = dropped
        self._broadcaster.close("the session moved to another process", partition)
        self._wake.set()
