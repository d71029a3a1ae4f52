"""What runs over a broker: the relay, the intake and the lag of pools."""

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kfm.catalogue.events import TOPICS

from kfm_server.bus.consumer import Consumer, consume
from kfm_server.bus.intake import (
    REQUESTS_LINGER,
    REQUESTS_PROBE,
    RESULTS_PROBE,
    requests_group,
    results_group,
)
from kfm_server.bus.postgres import PostgresBusStore
from kfm_server.bus.relay import Relay
from kfm_server.bus.sources import BrokerSource
from kfm_server.clock import Clock
from kfm_server.doors.bus import BusDoor
from kfm_server.journal.postgres import PostgresJournal
from kfm_server.ports.broker import BrokerMisfit
from kfm_server.ports.bus import Group
from kfm_server.settings import Settings, SettingsError

if TYPE_CHECKING:
    from kfm_server.bus.pool_lag import PoolLag


async def over_broker(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    *,
    journal: PostgresJournal,
    store: PostgresBusStore,
    assigned: Callable[[], Mapping[int, int]],
    clock: Clock,
    door: BusDoor,
) -> tuple[list[Consumer], list[Consumer], "list[PoolLag]"]:
    """The relay and the intake, for the partitions that this process owns, and the pools' lag; nothing without a broker.

    Raises SettingsError for a broker that is not as it must be; one that is away is waited for.
    """
    if not settings.iggy.address or "runtime" not in settings.role:
        return [], [], []
    try:
        from kfm_server.bus.iggy.broker import IggyBroker
        from kfm_server.bus.pool_lag import PoolLag
    except ImportError as error:
        raise SettingsError(f"KFM_IGGY_ADDRESS: install kfm-server[iggy]: {error}") from None
    try:
        broker = await stack.enter_async_context(IggyBroker.open(settings.iggy, TOPICS, settings.partitions))
    except BrokerMisfit as misfit:
        raise SettingsError(f"KFM_IGGY_ADDRESS: {misfit}") from None

    def read(group: Group, probe: tuple[float, float], linger: float = 0.0) -> Consumer:
        source = BrokerSource(broker, group.topics)
        return consume(
            group, source=source, store=store, assigned=assigned, clock=clock, linger=linger, probe=probe
        )

    intake = [read(requests_group(door.ask), REQUESTS_PROBE, REQUESTS_LINGER)]
    results = read(results_group(door.result), RESULTS_PROBE) if settings.iggy.pools else None
    # Without a worker on the broker nobody waits for a copy, and the turns here come first.
    relay = Relay(
        journal=journal,
        broker=broker,
        store=store,
        assigned=assigned,
        clock=clock,
        linger=1.0 if results is None else 0.0,
        pools=settings.iggy.pools,
        dispatched=None if results is None else results.expect,
    )
    if results is not None:
        intake.append(results)
    return [relay.consumer], intake, [PoolLag(broker, settings.iggy.pools, assigned, clock)]
