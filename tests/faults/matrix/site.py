"""The processes of a sitting: api, two runtimes and a worker on one database, with a broker beside it on bus_iggy."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from xenocomm import Client

from tests.faults.matrix.cells import Cell, Role
from tests.faults.matrix.pool_tools import CALLED
from tests.support.iggy import Iggy
from tests.support.live import LiveServer
from tests.support.live_worker import LiveWorker

POOL = "fixed"
SERVERS = {"api": "api", "runtime": "runtime", "other": "runtime"}
"""Their roles."""
PARTITIONS = 16
SECONDS = 30.0
"""Longest wait for a process, or for all of them to have settled."""
MODEL_SCRIPT = {
    "rules": [
        {"step": index, "reply": {"text": "next", "tools": [{"name": tool, "arguments": {}}]}}
        for index, tool in enumerate(CALLED)
    ]
    + [{"reply": {"text": "All is done.", "chunks": 4}}]
}
CONFIG = """
[models.small]
provider = "scripted"
script = "{script}"

[personalities.assistant]
planner = "react"
"""


@dataclass
class Site:
    """`start` and `kill` take a cell's role; a relay is killed with the runtime that it runs in."""

    home: Path
    dsn: str
    servers: dict[str, LiveServer]
    worker: LiveWorker
    ledgers: tuple[Path, ...]
    armed: set[str] = field(default_factory=set[str])

    @property
    def endpoint(self) -> str:
        """Where clients go."""
        return self.servers["api"].grpc

    async def stop(self, role: Role) -> None:
        """In order."""
        if role == "worker":
            await asyncio.to_thread(self.worker.stop)
        else:
            await asyncio.to_thread(self.servers[_server(role)].stop)

    async def start(self, cell: Cell, *, armed: bool) -> None:
        """Start the cell's process; armed, it dies at the cell's point."""
        failpoint = f"{cell.point}:{cell.nth}" if armed else ""
        if cell.role == "worker":
            self.worker.start(failpoint=failpoint)
            return
        server = self.servers[_server(cell.role)]
        await asyncio.to_thread(server.start, failpoint=failpoint)

    async def died(self, role: Role, seconds: float) -> bool:
        """Whether the process dies within the time."""
        process = self.worker.process if role == "worker" else self.servers[_server(role)].process
        assert process is not None
        until = asyncio.get_running_loop().time() + seconds
        while process.poll() is None:
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(0.005)
        return True

    async def ready(self, running: Sequence[str] = ("runtime", "other")) -> None:
        """Wait, bounded, until the runtimes share the partitions evenly and the worker is known where clients are."""
        async with asyncio.timeout(SECONDS):
            connection: Any = await asyncpg.connect(self.dsn)
            try:
                while await _shares(connection) != [PARTITIONS // len(running)] * len(running):  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(0.05)
            finally:
                await connection.close()
            async with Client(self.endpoint, timeout=SECONDS) as kfm:
                while POOL not in {w.pool for w in (await kfm.server.workers()).workers}:  # noqa: ASYNC110 (as above)
                    await asyncio.sleep(0.05)

    def log_tail(self, role: Role) -> str:
        """What the process said last."""
        return self.worker.log_tail() if role == "worker" else self.servers[_server(role)].log_tail(20)


def _server(role: Role) -> str:
    return "api" if role == "api" else "runtime"


async def _shares(connection: Any) -> list[int]:
    rows = await connection.fetch(
        "select count(*) as held from kfm.leases where expires_at > clock_timestamp() group by owner"
    )
    return sorted(row["held"] for row in rows)


def _configure(home: Path) -> None:
    """One model, which a script plays."""
    home.mkdir(parents=True, exist_ok=True)
    script = home / "script.json"
    script.write_text(json.dumps(MODEL_SCRIPT))
    for name in SERVERS:
        (home / name).mkdir(exist_ok=True)
        (home / name / "config.toml").write_text(CONFIG.format(script=script))


@asynccontextmanager
async def running(home: Path, dsn: str, iggy: Iggy | None) -> AsyncGenerator[Site]:
    """The site, ready; `dsn` is of an empty or migrated database."""
    ledgers = home / "local.jsonl", home / "pool.jsonl"
    environment = {"LEDGER_FILE": str(ledgers[0]), "KFM_PARTITIONS": str(PARTITIONS)}
    if iggy is not None:
        settings = iggy.settings()
        environment |= {
            "KFM_IGGY_ADDRESS": settings.address,
            "KFM_IGGY_USERNAME": settings.username,
            "KFM_IGGY_PASSWORD": settings.password.reveal(),
            "KFM_IGGY_STREAM": settings.stream,
        }
    _configure(home)
    servers: dict[str, LiveServer] = {}
    for name, role in SERVERS.items():
        servers[name] = LiveServer(
            home / name,
            tools="tests.support.ledger:TOOLS",
            database_url=dsn,
            environment=environment | {"KFM_ROLE": role},
        )
    worker = LiveWorker(
        home,
        "",
        "fixed",
        pool=POOL,
        tools="tests.faults.matrix.pool_tools:TOOLS",
        environment={"LEDGER_FILE": str(ledgers[1])},
    )
    site = Site(home, dsn, servers, worker, ledgers)
    try:
        for server in servers.values():  # one after the other: the first one migrates
            await asyncio.to_thread(server.start)
        worker.endpoint = servers["api"].grpc
        worker.start()
        await site.ready()
        yield site
    finally:
        worker.kill()
        for server in servers.values():
            with contextlib.suppress(AssertionError):
                server.kill()
