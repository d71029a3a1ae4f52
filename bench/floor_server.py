"""The bare floor: the least that a durable three-step turn over gRPC can cost here. A target, not a product.

A turn is accepted + 3 x step done + finished = 5 events of 1 KiB, each acknowledged after its commit
and then streamed. One writer commits whatever all turns queued while the last commit was in flight.
No validation, no fence, no state, no log. Usage: python -m bench.floor_server DSN PORT [uvloop]
"""

import asyncio
import os
import sys
import uuid
from typing import Any

import asyncpg
import grpc
from kfm.event.v1 import envelope_pb2

STEPS = 3
BODY = os.urandom(1024)
METHOD = "Run"
SERVICE = "bench.Floor"
EVENT_BYTES = "select sum(octet_length(body)) from floor_events"

_DDL = """
drop table if exists floor_events, floor_turns;
create table floor_events(turn uuid, seq int, kind smallint, at timestamptz default now(), body bytea,
  primary key(turn, seq));
create table floor_turns(turn uuid primary key, seq int, state smallint)
"""
_APPEND = """
with x as (select * from unnest($1::uuid[], $2::int[], $3::smallint[], $4::bytea[]) as t(turn, seq, kind, body)),
e as (insert into floor_events(turn, seq, kind, body) select * from x)
insert into floor_turns select distinct on (turn) turn, seq, kind from x order by turn, seq desc
on conflict(turn) do update set seq = excluded.seq, state = excluded.state
"""
Row = tuple[uuid.UUID, int, int, bytes]


class Journal:
    """Adaptive group commit over one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._queue: list[tuple[Row, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def append(self, row: Row) -> None:
        """Return when the row is durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((row, done))
        self._wake.set()
        await done

    async def write(self) -> None:
        """Commit what is queued, for ever."""
        statement = await self._connection.prepare(_APPEND)
        while True:
            await self._wake.wait()
            batch, self._queue = self._queue[:512], self._queue[512:]
            if not self._queue:
                self._wake.clear()
            if batch:
                await statement.fetch(
                    *(list(column) for column in zip(*(row for row, _ in batch), strict=True))
                )
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)


async def serve(dsn: str, port: int) -> None:
    """Serve until terminated."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(_DDL)
    journal = Journal(connection)

    async def run(request: envelope_pb2.Envelope, context: Any) -> None:
        turn = uuid.uuid4()
        for seq in range(STEPS + 2):
            await journal.append((turn, seq, seq, BODY))
            event = envelope_pb2.Envelope(event_id="e", type="step", sequence=seq)
            event.payload.value = BODY
            await context.write(event)

    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        run,
        request_deserializer=envelope_pb2.Envelope.FromString,
        response_serializer=envelope_pb2.Envelope.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(journal.write(), name="floor-writer")
        group.create_task(server.wait_for_termination(), name="floor-server")


def main() -> None:
    """Entry: DSN, port, and optionally `uvloop`."""
    job = serve(sys.argv[1], int(sys.argv[2]))
    if "uvloop" in sys.argv[3:]:
        import uvloop

        uvloop.run(job)
    else:
        asyncio.run(job)


if __name__ == "__main__":
    main()
