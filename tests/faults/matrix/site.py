"""The processes of a sitting: api, two runtimes and a worker on one database; on bus_iggy a broker, and a worker on it."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from xenocomm import Client

from tests.faults.matrix.cells import Cell
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
STEP_SECONDS = 1.0
"""A step that may not start twice is settled at its deadline, when its process is not known to be dead."""
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

[limits]
step_timeout = {step_seconds}

[personalities.assistant]
planner = "react"
"""


@dataclass
class Site:
    """`processes` by name: api, runtime, other, worker, and bus worker where there is a broker."""

    dsn: str
    processes: dict[str, LiveServer | LiveWorker]
    ledgers: tuple[Path, ...]

    @property
    def endpoint(self) -> str:
        """Where clients go."""
        api = self.processes["api"]
        assert isinstance(api, LiveServer)
        return api.grpc

    async def start(self, cell: Cell, *, armed: bool) -> None:
        """Start the cell's process; armed, it dies at the cell's point."""
        process = self.processes[cell.process]
        await asyncio.to_thread(process.start, failpoint=f"{cell.point}:{cell.nth}" if armed else "")

    async def stop(self, cell: Cell) -> None:
        """The cell's process, in order."""
        await asyncio.to_thread(self.processes[cell.process].stop)

    async def died(self, cell: Cell, seconds: float) -> bool:
        """Whether the cell's process dies within the time."""
        process = self.processes[cell.process].process
        assert process is not None
        until = asyncio.get_running_loop().time() + seconds
        while process.poll() is None:
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(0.005)
        return True

    async def ready(self) -> None:
        """Wait, bounded, until the runtimes share the partitions evenly, every server knows the pool's tools, and the workers are known where clients are."""
        workers = sum(isinstance(process, LiveWorker) for process in self.processes.values())
        async with asyncio.timeout(SECONDS):
            connection: Any = await asyncpg.connect(self.dsn)
            try:
                while await _shares(connection) != [PARTITIONS // 2] * 2:  # noqa: ASYNC110 (another process)
                    await asyncio.sleep(0.05)
            finally:
                await connection.close()
            for server in self.processes.values():
                if isinstance(server, LiveServer):
                    await _knows_pool_tools(server.grpc)
            async with Client(self.endpoint, timeout=SECONDS) as kfm:
                while len((await kfm.server.workers(POOL)).workers) < workers:  # noqa: ASYNC110 (as above)
                    await asyncio.sleep(0.05)

    def log_tail(self, cell: Cell) -> str:
        """What the cell's process said last."""
        return self.processes[cell.process].log_tail(20)


async def _knows_pool_tools(endpoint: str) -> None:
    """Servers look for what was told to another one once a second; a plan that names a tool before is refused."""
    wanted = {tool for tool in CALLED if tool.startswith("pool_")}
    async with Client(endpoint, timeout=SECONDS) as kfm:
        while not any(wanted <= set(pool.tools) for pool in (await kfm.server.workers(POOL)).pools):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


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
        (home / name / "config.toml").write_text(CONFIG.format(script=script, step_seconds=STEP_SECONDS))


@asynccontextmanager
async def running(
    home: Path, dsn: str, iggy: Iggy | None, given: Mapping[str, Mapping[str, str]] | None = None
) -> AsyncGenerator[Site]:
    """The site, ready; `dsn` is of an empty or migrated database, `given` are more variables of a process by its name."""
    more = defaultdict[str, Mapping[str, str]](dict, given or {})
    ledgers = home / "local.jsonl", home / "pool.jsonl"
    environment = {"KFM_PARTITIONS": str(PARTITIONS)}
    if iggy is not None:
        settings = iggy.settings()
        environment |= {
            "KFM_IGGY_ADDRESS": settings.address,
            "KFM_IGGY_USERNAME": settings.username,
            "KFM_IGGY_PASSWORD": settings.password.reveal(),
            "KFM_IGGY_STREAM": settings.stream,
            "KFM_IGGY_POOLS": POOL,
        }
    _configure(home)
    processes: dict[str, LiveServer | LiveWorker] = {}
    try:
        for name, role in SERVERS.items():  # one after the other: the first one migrates
            processes[name] = server = LiveServer(
                home / name,
                tools="tests.support.ledger:TOOLS",
                database_url=dsn,
                environment=environment | {"KFM_ROLE": role, "LEDGER_FILE": str(ledgers[0]), **more[name]},
            )
            await asyncio.to_thread(server.start)
        site = Site(dsn, processes, ledgers)
        for name in ("worker", "bus worker")[: 1 if iggy is None else 2]:
            processes[name] = LiveWorker(
                home,
                site.endpoint,
                f"fixed-{name.replace(' ', '-')}",
                pool=POOL,
                tools="tests.faults.matrix.pool_tools:TOOLS",
                options=("--bus",) if name == "bus worker" else (),
                environment=environment | {"LEDGER_FILE": str(ledgers[1]), **more[name]},
            ).start()
        await site.ready()
        yield site
    finally:
        for process in processes.values():
            process.kill()
