"""Row S5: today's release and the one before it, each with the other's clients, workers and servers. Run by `make n-1`."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from kfm_server.journal.migrate import migrations
from xenocomm import Client, errors
from xenocomm._gen.methods import METHODS
from xenocomm._gen.types import Outcome

from tests.faults.auditor import audit
from tests.n_minus_1.releases import TODAY, Release, before
from tests.support.ledger import read_ledger
from tests.support.live import LiveServer
from tests.support.live_worker import LiveWorker
from tests.support.plans import Gate, call, given, started, until

pytestmark = [pytest.mark.requirement("S5"), pytest.mark.timeout(180)]
HERE = Path(__file__).parent
SECONDS = 60.0
LISTED_METHODS = "import json; from xenocomm._gen.methods import METHODS; print(json.dumps([*METHODS]))"


@pytest.fixture(scope="session")
def old() -> Release:
    return before()


@pytest.fixture
def home() -> Iterator[Path]:
    """Where an unprivileged Postgres may come, too."""
    place = Path(tempfile.mkdtemp(prefix="kfm-n1-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def release(name: str, old: Release) -> Release:
    return old if name == "old" else TODAY


async def python(of: Release, *arguments: str) -> Any:
    """What a program of this release prints, as JSON. AssertionError with its stderr if it fails."""
    program = await asyncio.create_subprocess_exec(
        of.python,
        *arguments,
        env=of.environment(),
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(2 * SECONDS):
            said, complained = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
    assert program.returncode == 0, complained.decode()
    return json.loads(said)


async def scenario(of: Release, server: LiveServer, name: str) -> tuple[dict[str, Any], list[str]]:
    """What the client of this release is told by a server, and what it says of their releases."""
    told = await python(of, str(HERE / "scenario.py"), server.grpc, name)
    return told, told.pop("skew")


class Site:
    """Servers of both releases, each with its home, and the file that their tools write to."""

    def __init__(self, home: Path, database: str = "") -> None:
        self.home, self.database = home, database
        self.ledger = home / "ledger.jsonl"
        self.servers: list[LiveServer] = []

    def server(self, of: Release, name: str, **environment: str) -> LiveServer:
        """One that has not started."""
        made = of.server(self.home / name, self.database, {"LEDGER_FILE": str(self.ledger), **environment})
        self.servers.append(made)
        return made

    @asynccontextmanager
    async def up(self) -> AsyncGenerator[None]:
        """Inside, what is started runs; then what still runs is stopped, and has to end well."""
        try:
            yield
            for server in self.servers:
                if server.process is None or server.process.returncode is not None:
                    continue  # ended by the test itself
                assert await asyncio.to_thread(server.stop) == 0, server.log_tail()
        finally:
            for server in self.servers:
                server.kill()


@pytest.mark.parametrize(("client", "server"), [("old", "new"), ("new", "old")])
async def test_a_client_is_told_by_the_other_release_what_its_own_tells_it(
    client: str, server: str, old: Release, home: Path
) -> None:
    site = Site(home)
    async with site.up():
        own, other = site.server(release(client, old), "own"), site.server(release(server, old), "other")
        await asyncio.gather(*(asyncio.to_thread(s.start) for s in site.servers))
        expected, silent = await scenario(release(client, old), own, "own")
        told, skew = await scenario(release(client, old), other, "other")
    assert told == expected
    assert not silent, "of the same release nothing has to be said"
    differ = (old.directory / "proto/RELEASE").read_text() != (TODAY.directory / "proto/RELEASE").read_text()
    assert any("schema" in said for said in skew) == differ, skew


async def test_what_an_older_server_does_not_have_is_refused_as_unimplemented(
    old: Release, home: Path
) -> None:
    known = set(await python(old, "-c", LISTED_METHODS))
    new = [name for name, method in METHODS.items() if name not in known and not method.server_streaming]
    if not new:
        pytest.skip("today's schema has no method that the release before has not")
    site = Site(home)
    async with site.up():
        server = site.server(old, "old")
        await asyncio.to_thread(server.start)
        async with Client(server.grpc, timeout=10) as kfm:
            for name in new:
                with pytest.raises(errors.Unimplemented):
                    await kfm.turns._transport.call(name, {})  # pyright: ignore[reportPrivateUsage]


@pytest.mark.requirement("R10")
async def test_servers_are_upgraded_one_by_one_under_load_and_no_client_sees_an_error(
    old: Release, home: Path, empty_database: str
) -> None:
    site, stop = Site(home, empty_database), home / "stop"
    async with site.up():
        servers = [site.server(old, name) for name in ("first", "second")]
        for server in servers:  # one after the other: the first makes the tables
            await asyncio.to_thread(server.start)
        async with asyncio.TaskGroup() as group:
            clients = [
                group.create_task(
                    python(of, str(HERE / "load.py"), server.grpc, f"{place}-{of is old}", str(stop))
                )
                for of in (old, TODAY)
                for place, server in enumerate(servers)
            ]
            for number, server in enumerate(servers):
                await flows(site)
                assert await asyncio.to_thread(server.stop) == 0, server.log_tail()
                upgraded = site.server(TODAY, f"upgraded{number}")
                upgraded.grpc, upgraded.http = server.grpc, server.http
                await asyncio.to_thread(upgraded.start)
                # Old and new stand side by side now, with clients of both at each.
            await flows(site)
            stop.touch()
        turns = [turn for client in clients for turn in client.result()]
    audited = await audit(empty_database, site.ledger)
    assert set(audited) == set(turns), "a key started more than one turn"


async def flows(site: Site) -> None:
    """Wait, bounded, until the tools were called so often more that every client could have run a turn."""
    wanted = len(read_ledger(site.ledger)) + 48
    async with asyncio.timeout(SECONDS):
        while len(read_ledger(site.ledger)) < wanted:  # noqa: ASYNC110 (other processes write it)
            await asyncio.sleep(0.05)


async def owned(server: LiveServer, partitions: int = 16) -> None:
    """Wait, bounded, until it owns so many."""
    await asyncio.to_thread(server.await_gauge, "kfm_partitions_owned", partitions, 20.0)


@pytest.mark.requirement("R8")
async def test_either_release_goes_on_with_what_the_other_left(
    old: Release, home: Path, empty_database: str
) -> None:
    """Killed with turns in the middle, the old one is followed by the new, and that by an old one that had run all along."""
    site = Site(home, empty_database)
    gates = [Gate(home / f"gate{n}") for n in range(2)]
    steps = [
        call("s1", "ledger_idempotent"),
        call("s2", "ledger_idempotent", "s1", hold=gates[0].hold),
        call("s3", "ledger_idempotent", "s2", hold=gates[1].hold),
        call("s4", "ledger_once", "s3"),
    ]
    async with site.up(), asyncio.timeout(120):
        first, standby, new = (
            site.server(of, n) for of, n in ((old, "first"), (old, "standby"), (TODAY, "new"))
        )
        await asyncio.to_thread(first.start)
        await owned(first)
        await asyncio.to_thread(standby.start)
        async with Client(first.grpc) as kfm:
            ids = [(await kfm.turns.start(given(*steps))).id for _ in range(8)]
            await asyncio.gather(*(until(kfm.turns.attach(turn), started("s2")) for turn in ids))
        assert standby.process is not None
        standby.process.send_signal(19)  # SIGSTOP, so that it is the new one that takes over
        try:
            await asyncio.to_thread(new.start)
            await asyncio.to_thread(first.kill)
            await owned(new)
        finally:
            standby.process.send_signal(18)
        gates[0].open()
        async with Client(new.grpc) as kfm:
            await asyncio.gather(*(until(kfm.turns.attach(turn), started("s3")) for turn in ids))
        await asyncio.to_thread(new.kill)
        await owned(standby)
        gates[1].open()
        async with Client(standby.grpc) as kfm:
            turns = [await kfm.turns.attach(turn).result(timeout=SECONDS) for turn in ids]
    assert [turn.outcome for turn in turns] == [Outcome.SUCCEEDED] * len(ids)
    assert set(await audit(empty_database, site.ledger)) == set(ids)


async def test_an_older_server_that_starts_on_a_newer_database_is_refused_and_changes_nothing(
    old: Release, home: Path, empty_database: str
) -> None:
    if len(list((old.directory / "server/kfm_server/journal/migrations").glob("*.sql"))) == len(migrations()):
        pytest.skip("the release before has the same migrations")
    site = Site(home, empty_database)
    async with site.up():
        new = site.server(TODAY, "new")
        await asyncio.to_thread(new.start)
        was = await tables(empty_database)
        late = old.server(home / "late", empty_database, {"LEDGER_FILE": str(site.ledger)})
        with pytest.raises(AssertionError, match="at least as new"):
            await asyncio.to_thread(late.start)
        assert late.process is not None and late.process.returncode == 2
        assert await tables(empty_database) == was
        told, _ = await scenario(TODAY, new, "after")
        assert told["run"][-1] == "SUCCEEDED"


async def tables(database: str) -> list[tuple[str, str, str]]:
    """The columns of every table, and the migrations that were applied."""
    connection = await asyncpg.connect(database)
    try:
        columns = await connection.fetch(
            "select table_name::text, column_name::text, data_type::text from information_schema.columns"
            " where table_schema = 'kfm' union all select 'applied', number::text, checksum from kfm.migrations"
            " order by 1, 2"
        )
        return [(row[0], row[1], row[2]) for row in columns]
    finally:
        await connection.close()


@pytest.mark.parametrize(("worker", "server"), [("new", "new"), ("old", "new"), ("new", "old")])
async def test_a_worker_serves_the_other_release(worker: str, server: str, old: Release, home: Path) -> None:
    if "old" in (worker, server) and not old.offers("worker"):
        pytest.skip("the release before has no kfm worker: from the next one on")
    site, of = Site(home), release(worker, old)
    async with site.up():
        live = release(server, old).server(home / "server", "", {}, tools="")
        site.servers.append(live)
        await asyncio.to_thread(live.start)
        pool = LiveWorker(
            home,
            live.grpc,
            "w1",
            environment={"PYTHONPATH": of.path},
            python=of.python,
            directory=of.directory,
        )
        pool.start()
        try:
            async with Client(live.grpc, timeout=20) as kfm, asyncio.timeout(SECONDS):
                while not (await kfm.server.workers("gpu")).workers:  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(0.05)
                turn = await kfm.turns.run(given(call("s1", "ledger_idempotent")), wait=SECONDS)
            assert await asyncio.to_thread(pool.stop) == 0
        finally:
            pool.kill()
            print(pool.log_tail())
    assert turn.outcome == Outcome.SUCCEEDED
    assert [row["tool"] for row in read_ledger(site.ledger)] == ["ledger_idempotent"]
