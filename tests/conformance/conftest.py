"""One suite for each port: every test runs over memory and over Postgres; the bus also over brokers."""

from collections.abc import AsyncGenerator

import asyncpg
import pytest
from kfm.catalogue.events import TOPICS
from kfm_server.bus.iggy.broker import IggyBroker
from kfm_server.bus.iggy.client import IggyConnection
from kfm_server.bus.memory import MemoryBroker, MemoryBusStore
from kfm_server.bus.postgres import PostgresBusStore
from kfm_server.journal.memory import MemoryJournal

from tests.support.bus import PARTITIONS, BrokerCarrier, Carrier, JournalCarrier, Told
from tests.support.iggy import Iggy
from tests.support.journals import postgres_store


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str:
    """Where the store is; empty is in memory."""
    return "" if request.param == "memory" else request.getfixturevalue("database")


@pytest.fixture(params=["journal-memory", "journal-postgres", "broker-memory", "broker-iggy"])
def engine(request: pytest.FixtureRequest) -> str:
    """What carries the events of the bus."""
    return request.param


@pytest.fixture
def engine_dsn(engine: str, request: pytest.FixtureRequest) -> str:
    """The database of the engine's cursors, and of its journal if it has one; empty: both are in memory."""
    return "" if engine.endswith("-memory") else request.getfixturevalue("database")


@pytest.fixture
def iggy_server(engine: str, request: pytest.FixtureRequest) -> Iggy | None:
    """The engine's server, if it is one of Iggy."""
    return request.getfixturevalue("iggy") if engine == "broker-iggy" else None


@pytest.fixture
async def store(engine_dsn: str) -> AsyncGenerator[Told]:
    """Where groups keep their cursors, holds and letters."""
    if not engine_dsn:
        yield Told(MemoryBusStore())
        return
    async with PostgresBusStore.open_pool(engine_dsn) as made:
        yield Told(made)


@pytest.fixture
async def carrier(engine: str, engine_dsn: str, iggy_server: Iggy | None) -> AsyncGenerator[Carrier]:
    """The engine, empty, with PARTITIONS partitions at least."""
    if engine == "journal-memory":
        yield JournalCarrier(MemoryJournal(PARTITIONS))
    elif engine == "broker-memory":
        broker = MemoryBroker(PARTITIONS)

        async def away_and_back() -> None:
            broker.away = True
            broker.refused.clear()
            await broker.refused.wait()
            broker.away = False

        async def wiped() -> None:
            broker.wipe()

        yield BrokerCarrier(broker, away_and_back, wiped)
    elif iggy_server is not None:
        server = iggy_server

        async def restart() -> None:
            if server.own:
                await server.kill()
                await server.start()

        settings = server.settings()

        async def without_stream() -> None:
            connection = IggyConnection(settings)
            await connection.call(lambda client: client.delete_stream(settings.stream))
            connection.close()

        async with IggyBroker.open(settings, TOPICS, PARTITIONS) as broker:
            yield BrokerCarrier(broker, restart, without_stream)
    else:

        async def cut() -> None:
            admin = await asyncpg.connect(engine_dsn)
            try:
                await admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where pid <> pg_backend_pid() and datname = current_database()"
                )
            finally:
                await admin.close()

        async with postgres_store(engine_dsn) as made:
            await made.leases.acquire("me", "", take_over=True, most=16)
            yield JournalCarrier(made.journal, 1, cut)
