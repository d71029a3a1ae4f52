"""Keeps the leases of this process: takes free partitions, renews, notices what was lost, reads the inbox."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from kfm_server.clock import Clock
from kfm_server.ports.journal import Fenced, JournalUnavailable, Lease, Leases
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.sessions import OwnedPartition, Sessions

log = structlog.get_logger(__name__)

LEASE_SECONDS = 3.0
RENEW_SECONDS = 1.0
MARGIN_SECONDS = 0.5
"""An effect starts only while the lease has this much left, by the monotonic clock."""
ANSWER_SECONDS = 0.75
"""A renewal that takes longer says that the database is away: together with RENEW_SECONDS below two seconds."""


class LeaseKeeper:
    """One per process. `on_serving` is told whether the database answers."""

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
    ) -> None:
        self._leases = leases
        self._sessions = sessions
        self._broadcaster = broadcaster
        self._clock = clock
        self._owner = owner
        self.address = address
        self._on_serving = on_serving
        self._valid_until: dict[int, float] = {}
        self._wake = asyncio.Event()
        self._seen: dict[int, set[int]] = {}
        self._run_here: dict[int, int] = {}

    async def start(self, *, take_over: bool) -> None:
        """Take what is free, or everything if every earlier owner is known to be dead."""
        await self._acquire(take_over=take_over)
        self._on_serving(True)

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            # Only told, not cut short: a database that was frozen answers when it comes back.
            late = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._on_serving, False)
            try:
                await self._renew()
                await self._acquire(take_over=False)
                await self._sessions.look_again()
            except JournalUnavailable as gone:
                self._on_serving(False)
                log.warning("lease_renewal_failed", error=str(gone))
            else:
                self._on_serving(True)
            finally:
                late.cancel()

    def wake(self) -> None:
        """Look at the inbox, and at holds that were released, now."""
        self._wake.set()

    async def release(self) -> None:
        """Give everything back."""
        self._sessions.close()
        await self._leases.release(self._owner)

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        held, inbox = await self._leases.renew(self._owner)
        epochs = {lease.partition: lease.epoch for lease in held}
        for partition, owner in list(self._sessions.owned.items()):
            if epochs.get(partition) == owner.epoch:
                self._valid_until[partition] = asked_at + LEASE_SECONDS - MARGIN_SECONDS
            else:
                self._lose(owner)
        for lease in held:
            if lease.partition not in self._sessions.owned:
                await self._take_again(lease, asked_at)
        waiting = {item.id for item in inbox}
        for partition, seen in self._seen.items():
            self._seen[partition] = seen & waiting
        for item in inbox:
            seen = self._seen.setdefault(item.partition, set())
            if item.id not in seen:
                await self._sessions.consume(item)
                seen.add(item.id)

    async def _acquire(self, *, take_over: bool) -> None:
        if len(self._sessions.owned) == self._sessions.partitions:
            return
        asked_at = self._clock.monotonic()
        taken = await self._leases.acquire(
            self._owner, self.address, take_over=take_over, most=self._sessions.partitions
        )
        for lease in taken:
            await self._take(lease, asked_at)

    async def _take_again(self, lease: Lease, asked_at: float) -> None:
        """Load a partition that we hold but dropped, or could not load, for a failure of our own."""
        try:
            # An append that was under way when it was dropped comes before this one: what is read then is all.
            await self._sessions.barrier(lease)
        except Fenced:
            return
        # Whatever ran for it here was stopped: if it ever did run here, start clean.
        clean = lease.clean or self._run_here.get(lease.partition) == lease.epoch
        await self._take(replace(lease, clean=clean), asked_at)

    async def _take(self, lease: Lease, asked_at: float) -> None:
        former = self._sessions.owned.get(lease.partition)
        if former is not None:
            self._lose(former)
        self._seen.pop(lease.partition, None)
        self._valid_until[lease.partition] = asked_at + LEASE_SECONDS - MARGIN_SECONDS
        owner = OwnedPartition(
            lease.partition,
            lease.epoch,
            lambda partition: self._valid_until.get(partition, 0.0),
            self._clock.monotonic,
            self._lose,
        )
        await self._sessions.take(lease, owner)
        self._run_here[lease.partition] = lease.epoch

    def _lose(self, owner: OwnedPartition) -> None:
        """Forget a partition; it comes back, if at all, from the journal."""
        if self._sessions.owned.get(owner.partition) is not owner:
            return
        log.warning("partition_lost", partition=owner.partition, epoch=owner.epoch)
        self._valid_until.pop(owner.partition, None)
        self._sessions.drop(owner.partition)
        self._broadcaster.close("the session moved to another process", owner.partition)
        self._wake.set()
