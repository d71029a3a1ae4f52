"""What an event's codec costs beside bare upb (N4): the events of one real turn, built and encoded, and decoded.

    python -m bench.codec [--rounds 9] [--loops 2000]

`encode`: from the payload's message and the fields of its envelope to the bytes that the journal takes. `decode`: from them to the
envelope and the typed payload. `kfm` is the catalogue (`fill`, `unpack`), as journal, bus and workers use it; `sdk` the SDK's
dataclasses; `upb` does the same with protobuf alone: it knows the class, checks nothing, keeps no order of maps. Beside them
`upb-ready`: messages that are there already to bytes, and nothing else. Microseconds of one thread for each event, the median over
interleaved rounds, and the ratio to `upb`, by the mean over the turn's events.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from google.protobuf.message import Message
from kfm.catalogue.events import EVENT_TYPES, fill, unpack
from kfm.event.v1.envelope_pb2 import Envelope
from xenocomm import Client
from xenocomm._gen import types as sdk
from xenocomm._gen.pool import pb

from bench.processes import Missing
from bench.systems import Server, scratch
from bench.work import plan


@dataclass(frozen=True, slots=True)
class Event:
    """One event: as stored, and as its parts."""

    stored: bytes
    envelope: Envelope
    payload: Message
    fields: dict[str, Any]
    """Of the envelope, without what the catalogue puts there."""

    @classmethod
    def of(cls, stored: bytes) -> "Event":
        """From the journal's bytes."""
        envelope = Envelope.FromString(stored)
        payload = unpack(envelope)
        assert payload is not None
        said = {"type", "spec_version", "may_ignore", "payload"}
        fields = {f.name: value for f, value in envelope.ListFields() if f.name not in said}
        return cls(stored, envelope, payload, fields)


async def events(server: Server) -> list[Event]:
    """What the journal holds of a turn of three steps."""
    async with Client(server.grpc) as kfm:
        done = await kfm.turns.run(json.loads(plan("bench_local")))
    database = await asyncpg.connect(server.database())
    rows = await database.fetch(
        "select envelope from kfm.journal where turn_id = $1 order by sequence", done.turn_id
    )
    await database.close()
    return [Event.of(row["envelope"]) for row in rows]


def _kfm_encode(event: Event) -> bytes:
    envelope = Envelope(**event.fields)
    fill(envelope, event.payload)
    return envelope.SerializeToString()


def _upb_encode(event: Event) -> bytes:
    kind = EVENT_TYPES[event.envelope.type]
    envelope = Envelope(**event.fields, type=kind.name, spec_version=kind.spec_version)
    envelope.payload.type_url = kind.url
    envelope.payload.value = event.payload.SerializeToString()
    return envelope.SerializeToString()


def _ready_encode(event: Event) -> bytes:
    event.payload.SerializeToString()
    return event.envelope.SerializeToString()


def _kfm_decode(event: Event) -> object:
    return unpack(Envelope.FromString(event.stored))


def _upb_decode(event: Event) -> object:
    return type(event.payload).FromString(Envelope.FromString(event.stored).payload.value)


_sdk_envelope = pb("kfm.event.v1.Envelope")


def _sdk_decode(event: Event) -> object:
    return sdk.Envelope.from_pb(_sdk_envelope.FromString(event.stored))


WAYS: dict[tuple[str, str], Callable[[Event], object]] = {
    ("encode", "upb"): _upb_encode,
    ("encode", "upb-ready"): _ready_encode,
    ("encode", "kfm"): _kfm_encode,
    ("decode", "upb"): _upb_decode,
    ("decode", "kfm"): _kfm_decode,
    ("decode", "sdk"): _sdk_decode,
}


def microseconds(way: Callable[[Event], object], found: Sequence[Event], loops: int) -> float:
    """For each event, over the turn's events so many times."""
    begun = time.perf_counter()
    for _ in range(loops):
        for event in found:
            way(event)
    return (time.perf_counter() - begun) / (loops * len(found)) * 1e6


def run(found: Sequence[Event], rounds: int, loops: int) -> None:
    """Rounds of every way, and what they come to."""
    for event in found:
        assert _kfm_encode(event) == event.stored, event.envelope.type
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in WAYS}
    for _ in range(rounds):
        for key, way in WAYS.items():
            taken[key].append(microseconds(way, found, loops))
    print(
        json.dumps({"events": len(found), "bytes_each": round(statistics.mean(len(e.stored) for e in found))})
    )
    for (do, name), values in taken.items():
        row = {"do": do, "name": name, "us": round(statistics.median(values), 2)}
        ratio = statistics.median(mine / bare for mine, bare in zip(values, taken[do, "upb"], strict=True))
        print(json.dumps(row | {"us_min": round(min(values), 2), "to_upb": round(ratio, 2)}))


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--loops", type=int, default=2000)
    given = parser.parse_args()
    try:
        with scratch() as home:
            server = Server(home)
            try:
                found = asyncio.run(events(server))
            finally:
                server.close()
    except Missing as missing:
        sys.exit(f"bench: {missing}")
    run(found, given.rounds, given.loops)


if __name__ == "__main__":
    main()
