"""A tool's output that does not fit into an event, through a real server and its restart."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from xenocomm import Client, Outcome
from xenocomm._gen.errors import StateConflict, StepNotFound
from xenocomm._gen.types import Envelope, StepEvent, StepResultEvent, WaitReason

from tests.support.live import LiveServer
from tests.support.plans import call, given, question, until, waits

MEBIBYTE = 1 << 20
MOST_IN_EVENT = 262_144


def results(events: list[Envelope]) -> dict[str, StepResultEvent]:
    """The results by step."""
    return {e.event.step_key: e.event for e in events if isinstance(e.event, StepResultEvent)}


@pytest.mark.requirement("R4", "T2")
async def test_a_large_output_stands_apart_and_flows_on_also_after_a_restart(
    database: str, tmp_path: Path
) -> None:
    server = LiveServer(tmp_path / "home", tools="tests.support.large:TOOLS", database_url=database)
    body = {"$ref": "s1#/body"}
    plan = given(
        call("s1", "grow", bytes=MEBIBYTE),
        call("s2", "measure", body=body),
        question("ask", "s2"),
        call("s3", "measure", "ask", body=body, more={"$ref": "s1#"}),
    )
    db: Any = await asyncpg.connect(database)
    await asyncio.to_thread(server.start)
    try:
        async with Client(server.grpc, timeout=15) as kfm:
            turn = await kfm.turns.start(plan)
            live = await until(turn, waits(WaitReason.HUMAN))
            before = (await turn.get()).steps[0].output_json
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert (await turn.get()).steps[0].output_json == before
            await turn.answer("ask", '"go on"')
            done = await turn.result(timeout=20)
            stored = [e async for e in turn.events()]
    finally:
        await asyncio.to_thread(server.stop)
        rows = await db.fetch("select digest, body from kfm.blobs")
        largest = await db.fetchval("select max(length(envelope)) from kfm.journal")
        await db.close()

    assert done.outcome == Outcome.SUCCEEDED
    grown = json.loads(before)["body"]
    assert len(grown) == MEBIBYTE
    measured = {"length": MEBIBYTE, "ends": grown[:8] + grown[-8:]}
    assert [
        json.loads(s.output_json) for s in done.steps if s.definition and s.definition.tool == "measure"
    ] == [
        measured,
        measured,
    ]
    assert [part.text for part in done.output if part.text] == ["grown\ngo on"]

    digest = hashlib.sha256(before.encode()).hexdigest()
    assert [(row["digest"], row["body"].decode()) for row in rows] == [(digest, before)]
    for events in (live, stored):
        assert (results(events)["s1"].output_blob, results(events)["s1"].output_json) == (digest, "")
    assert largest < MOST_IN_EVENT
    recipe = [
        json.loads(e.event.parameters_json)
        for e in stored
        if isinstance(e.event, StepEvent) and e.event.step_key == "s3"
    ]
    assert recipe == [{"body": body, "more": {"$ref": "s1#"}}]


@pytest.mark.requirement("T2")
async def test_what_is_too_large_for_a_turn_is_a_reference_and_is_fetched_in_parts(
    database: str, tmp_path: Path
) -> None:
    server = LiveServer(tmp_path / "home", tools="tests.support.large:TOOLS", database_url=database)
    keys = [f"s{n}" for n in range(5)]
    most = 7 * MEBIBYTE
    await asyncio.to_thread(server.start)
    try:
        async with Client(server.grpc, timeout=60) as kfm:
            small = call("small", "grow", bytes=64)
            turn = await kfm.turns.start(given(small, *(call(key, "grow", bytes=most) for key in keys)))
            done = await turn.result(timeout=90)
            events = results([event async for event in turn.events()])
            assert done.outcome == Outcome.SUCCEEDED
            shown = {step.definition.key: step for step in done.steps if step.definition}
            assert json.loads(shown["small"].output_json)["text"] == "grown"
            assert await turn.step_output("small") == shown["small"].output_json
            assert not (shown["small"].output_digest or events["small"].output_head)
            for key in keys:
                whole = await turn.step_output(key)
                assert len(json.loads(whole)["body"]) == most
                digest = hashlib.sha256(whole.encode()).hexdigest()
                step, event = shown[key], events[key]
                assert (step.output_json, step.output_digest, step.output_bytes) == ("", digest, len(whole))
                assert (event.output_json, event.output_blob, event.output_bytes) == ("", digest, len(whole))
                assert event.output_head and whole.startswith(event.output_head)
                assert len(event.output_head) <= 1024
            with pytest.raises(StepNotFound):
                await turn.step_output("s9")
            waits_on = await kfm.turns.start(given(question("ask")))
            with pytest.raises(StateConflict):
                await waits_on.step_output("ask")
            await waits_on.cancel()
    finally:
        await asyncio.to_thread(server.stop)
