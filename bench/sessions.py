"""Memory of an idle session (N7, PT6): sessions whose turn waits for a person, and the same when their turns have ended.

Usage: python -m bench.sessions [N ...]

For each N a server of its own opens N sessions with one turn each, which asks a person and waits. Then every turn is answered. A session
without an unfinished turn is in the database alone, so what stays then is what the allocator keeps. Bytes are of the server's process
(RSS), not of Postgres, whose pages are shared. Prints JSON lines.
"""

import argparse
import asyncio
import json
import sys
import time
import uuid
from typing import Any

import grpc
import psutil
from kfm.turn.v1 import turn_service_pb2 as service
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from bench.processes import Missing
from bench.systems import Server, scratch
from bench.watchers import gauge
from bench.work import request

ASK = json.dumps({"plan": {"steps": [{"key": "q", "kind": "human", "instructions": "Go on?"}]}})
CALLERS = 32
SECONDS = 240.0
GOAL_KB = 40


async def run(server: Server, number: int) -> None:
    """Open, measure, answer, measure."""
    process = psutil.Process(server.pid)
    async with grpc.aio.insecure_channel(server.grpc) as channel, asyncio.timeout(SECONDS):
        stub = rpc.TurnServiceStub(channel)
        await _open(stub, 50)  # code, pools and caches, which are not the sessions'
        before, base = process.memory_info().rss, gauge(server, "kfm_sessions_in_memory")
        begun = time.perf_counter()
        turns = await _open(stub, number)
        took = time.perf_counter() - begun
        await _settled(server, base + number)
        held = process.memory_info().rss - before
        _print("sessions idle", sessions=number, open_s=round(took, 1), server_kb_each=_kb(held, number))
        await _each(turns, lambda turn_id: stub.AnswerStep(_answer(turn_id), timeout=60))
        await _settled(server, base)
        held = process.memory_info().rss - before
        _print("sessions ended", sessions=number, in_memory=0, server_kb_each=_kb(held, number))


async def _open(stub: Any, number: int) -> list[str]:
    """Turn ids of so many sessions, all of which wait for a person."""
    turns: list[str] = []

    async def one(_: str) -> None:
        made = request(ASK)
        asked = service.SubmitTurnRequest(turn=made.turn, idempotency_key=made.idempotency_key)
        turns.append((await stub.SubmitTurn(asked, timeout=60)).turn_id)

    await _each([""] * number, one)
    return turns


async def _each(values: list[str], do: Any) -> None:
    left = iter(values)

    async def caller() -> None:
        for value in left:
            await do(value)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())


async def _settled(server: Server, value: int) -> None:
    def wait() -> None:
        until = time.monotonic() + 60
        while (found := gauge(server, "kfm_sessions_in_memory")) != value:
            if time.monotonic() > until:
                raise Missing(f"{found} sessions are in memory, and not {value}")
            time.sleep(0.1)

    await asyncio.to_thread(wait)


def _answer(turn_id: str) -> service.AnswerStepRequest:
    return service.AnswerStepRequest(
        turn_id=turn_id, step_key="q", output_json='"yes"', idempotency_key=uuid.uuid4().hex
    )


def _kb(held: int, number: int) -> float:
    return round(held / number / 1024, 1)


def _print(measure: str, **values: Any) -> None:
    print(json.dumps({"measure": measure, **values}), flush=True)


def main() -> None:
    """A server for each number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", type=int, nargs="*", default=[1_000, 10_000])
    for number in parser.parse_args().numbers:
        with scratch() as home:
            try:
                server = Server(home)
                try:
                    asyncio.run(run(server, number))
                finally:
                    server.close()
            except Missing as missing:
                sys.exit(f"bench: {missing}")


if __name__ == "__main__":
    main()
