"""The versions of what runs, as the results tell them."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.iggy import Iggy


async def versions(dsn: str, iggy: Iggy | None) -> dict[str, str]:
    """Python, Postgres, the commit, and of a broker what it says of itself."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        postgres: str = await connection.fetchval("show server_version")
    finally:
        await connection.close()
    found = {"python": platform.python_version(), "postgres": postgres.split()[0], "commit": _commit()}
    if iggy is not None:
        found |= {"iggy-server": await _server(iggy), "apache-iggy": version("apache-iggy")}
    return found


def _commit() -> str:
    here = Path(__file__).parent
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=here)
    return asked.stdout.strip()


async def _server(iggy: Iggy) -> str:
    from apache_iggy import AutoLogin, IggyClient, TcpConfig

    settings = iggy.settings()
    login = AutoLogin.username_password(settings.username, settings.password.reveal())
    client = IggyClient(TcpConfig(server_address=settings.address, auto_login=login))
    await client.connect()
    return (await client.get_stats()).iggy_server_version
