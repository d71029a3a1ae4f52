"""DBOS: a durable asyncio workflow of three steps, called directly. Usage: python -m bench.peers.dbos_client DSN"""

import asyncio
import os
import sys

from dbos import DBOS, DBOSConfig

from bench.driver import obey

STEPS = 3


@DBOS.step()
async def step(x: int) -> int:
    """One step."""
    return x + 1


@DBOS.workflow()
async def flow(x: int) -> int:
    """Three steps."""
    for _ in range(STEPS):
        x = await step(x)
    return x


async def main() -> None:
    """Run the closed loop in this process: DBOS is a library."""
    DBOS.launch()

    async def one(_: int) -> None:
        if await flow(1) != 1 + STEPS:
            raise RuntimeError("DBOS answered wrongly")

    await obey(one)


if __name__ == "__main__":
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": sys.argv[1].replace("postgresql://", "postgresql+psycopg://"),
        "log_level": "ERROR",
        "sys_db_pool_size": 64,
        "run_admin_server": False,
    }
    DBOS(config=config)
    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)  # its worker threads do not end by themselves
