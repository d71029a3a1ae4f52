"""Restate: calls through the ingress. Usage: python -m bench.peers.restate_client INGRESS_PORT ADMIN_PORT APP_PORT"""

import asyncio
import json
import sys
import time

import aiohttp

from bench.driver import obey

STEPS = 3


async def _register(session: aiohttp.ClientSession, admin: str, app: str) -> None:
    until, said = time.monotonic() + 40, ""
    while time.monotonic() < until:
        try:
            body = {"uri": f"http://127.0.0.1:{app}", "force": True}
            async with session.post(f"http://127.0.0.1:{admin}/deployments", json=body) as reply:
                if reply.status in (200, 201):
                    return
                said = await reply.text()
        except aiohttp.ClientError as error:
            said = repr(error)
        await asyncio.sleep(0.3)
    raise RuntimeError(f"Restate did not come up: {said}")


async def main(ingress: str, admin: str, app: str) -> None:
    """Register the handler, then run the closed loop against the ingress."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=128)) as session:
        await _register(session, admin, app)

        async def one(_: int) -> None:
            async with session.post(f"http://127.0.0.1:{ingress}/Bench/flow", json=1) as reply:
                body = await reply.read()
                if reply.status != 200 or json.loads(body) != 1 + STEPS:
                    raise RuntimeError(f"Restate answered {reply.status} {body!r}")

        await obey(one)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
