"""A process as a worker of the others: what they own is performed by the workers that are connected here.

So a worker needs to know one address only. To each owner of partitions, and for each pool that is served here, there
is one stream, on which this process offers the places of its workers. One hop at most: what comes over such a stream
goes to workers that are connected here, never to a third process.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

import structlog
from google.protobuf.duration_pb2 import Duration
from kfm.catalogue.events import SCHEMA_RELEASE
from kfm.worker.v1 import worker_service_pb2 as pb
from xenocomm._gen.errors import XenocommError

from kfm_server.clock import Clock
from kfm_server.ids import partition_of
from kfm_server.ports.attempt_refs import MOST_HELD
from kfm_server.ports.journal import JournalUnavailable, Leases
from kfm_server.ports.steps import Attempt, AttemptResult, Progress
from kfm_server.runtime.pools.hub import WorkerPools
from kfm_server.worker.leases import Leases as WorkerLeases
from kfm_server.worker.link import Link

log = structlog.get_logger(__name__)
LOOK_SECONDS: Final = 0.5
"""Between two looks at who owns what, and at what workers hold that nobody here awaits."""
_ADOPTED = Duration(seconds=24 * 3600)
"""What is adopted ends by its owner's word, not by a deadline that is not known here."""
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


class _Upstream:
    """The stream to one owner on behalf of one pool."""

    def __init__(
        self, pools: WorkerPools, pool: str, address: str, hello: pb.Hello, parts: "WorkerRelay"
    ) -> None:
        self.address = address
        self.pool = pool
        self._pools = pools
        self._hello = hello
        self.leases = WorkerLeases(
            self._run,
            None,
            min(pools.places(pool), MOST_HELD),
            parts.clock,
            lambda work: parts.spawn(work, f"guest of {pool}"),
        )
        self.link = Link((address,), self._say_hello, self.leases, parts.token, None, at_owner=True)
        self.leases.line = self.link
        self.task = parts.spawn(self._keep(), f"relay of {pool} to {address}")

    def _run(self, attempt: Attempt, progress: Progress) -> Coroutine[Any, Any, AttemptResult]:
        return self._pools.run_guest(replace(attempt, pool=self.pool), progress)

    def _adopt(self, attempt: Attempt, progress: Progress) -> Coroutine[Any, Any, AttemptResult]:
        return self._pools.adopt(replace(attempt, pool=self.pool), progress, guest=True)

    def _say_hello(self) -> pb.Hello:
        hello = pb.Hello(running=self.leases.refs(), capacity=self.leases.capacity)
        hello.MergeFrom(self._hello)
        return hello

    async def _keep(self) -> None:
        try:
            await self.link.run()
        except XenocommError as refused:  # another release, or another token: it is tried again
            log.warning("relay_refused", address=self.address, pool=self.pool, reason=refused.reason)

    def look(self, owns: Callable[[str], bool | None]) -> None:
        """Offer the places that there are now, take up what the owner may be waiting for, and let go what another owns now.

        `owns` tells whether this owner has a session; None if nobody has.
        """
        self.leases.let_go(lambda ref: owns(ref.session_id) is False)
        places = min(self._pools.places(self.pool), MOST_HELD)
        if places != self.leases.capacity:
            self.leases.capacity = places
            self.link.tell(pb.WorkRequest(capacity=pb.Capacity(capacity=places)))
        for pool, ref in self._pools.unclaimed():
            if pool == self.pool and owns(ref.session_id) and self.link.open:
                self.leases.go_on(pb.Lease(ref=ref, timeout=_ADOPTED), self._adopt)

    def close(self) -> None:
        self.task.cancel()
        self.leases.let_go()


class WorkerRelay:
    """One per process that owns no partition, or not all of them."""

    def __init__(
        self,
        pools: WorkerPools,
        leases: Leases,
        *,
        owner: str,
        address: str,
        partitions: int,
        token: str,
        clock: Clock,
        spawn: Spawn,
    ) -> None:
        """`owner`: this process in the lease table; `token`: what the doors of all processes ask for.

        `address`: where others reach this process. A lease of another owner there is of the process that was killed here.
        """
        self.token = token
        self.clock = clock
        self.spawn = spawn
        self._pools = pools
        self._leases = leases
        self._owner = owner
        self._not_at = ("", address)
        self._partitions = partitions
        self._upstreams: dict[tuple[str, str], _Upstream] = {}
        self._poke = asyncio.Event()
        pools.connections.on_change = self._poke.set

    async def run(self) -> None:
        """Keep the streams until cancelled."""
        try:
            while True:
                self._poke.clear()
                try:
                    await self._look()
                except JournalUnavailable as away:
                    log.debug("relay_waits", error=str(away))
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._poke.wait()
                except TimeoutError:
                    pass
        finally:
            for upstream in self._upstreams.values():
                upstream.close()

    async def _look(self) -> None:
        served = self._pools.pools
        if not served and not self._upstreams:
            return
        holders = {lease.partition: lease for lease in await self._leases.holders()}
        addresses = {
            lease.address
            for lease in holders.values()
            if lease.owner != self._owner and lease.address not in self._not_at
        }
        for (address, pool), upstream in list(self._upstreams.items()):
            idle = pool not in served and not upstream.leases.refs()
            if address not in addresses or idle or upstream.task.done():
                upstream.close()
                del self._upstreams[address, pool]
        for address in sorted(addresses):
            for pool in sorted(served):
                if (address, pool) not in self._upstreams:
                    hello = pb.Hello(
                        worker=self._owner,
                        pool=pool,
                        schema_release=SCHEMA_RELEASE,
                        program="kfm",
                        instance=secrets.token_hex(8),
                    )
                    self._upstreams[address, pool] = _Upstream(self._pools, pool, address, hello, self)
        for (address, _), upstream in self._upstreams.items():

            def owns(session_id: str, address: str = address) -> bool | None:
                lease = holders.get(partition_of(session_id, self._partitions))
                return None if lease is None else lease.address == address

            upstream.look(owns)
