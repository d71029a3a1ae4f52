"""Requests that come three times, out of order and late, by way of both servers: what they leave is what a clean run leaves.

KFM_TEST_SEED replays one seed. The deliveries that are late are late by the clock, as FT10 asks: up to five seconds.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as pb
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from tests.faults.auditor import audit
from tests.faults.conftest import Report
from tests.faults.work import seeds
from tests.support.ledger import read_ledger
from tests.support.live import LiveServer
from tests.support.plans import call, document, question

TURNS = 64
COPIES = 3
WINDOW = 64
LATE_SHARE = 0.1
LATE_SECONDS = 5.0
SECONDS = 120.0
Delivery = Callable[[Any], Awaitable[Any]]


@dataclass
class Site:
    """Two servers on one database; the first owns all."""

    servers: list[LiveServer]
    dsn: str
    ledger: Path
    stubs: list[Any] = field(default_factory=list[Any])

    async def deliver(self, requests: list[Delivery], draw: random.Random | None) -> list[Any]:
        """What each request was answered, by copy; with a draw: each three times, shuffled, some late, through either."""
        if draw is None:
            return [[await request(self.stubs[0])] for request in requests]
        places = sorted(
            (n + draw.uniform(0, WINDOW / COPIES), n) for n in range(len(requests)) for _ in range(COPIES)
        )
        answers: list[list[Any]] = [[] for _ in requests]

        async def one(n: int, late: float, stub: Any) -> None:
            await asyncio.sleep(late)
            answers[n].append(await requests[n](stub))

        async with asyncio.TaskGroup() as group:
            for _, n in places:
                late = draw.uniform(0, LATE_SECONDS) if draw.random() < LATE_SHARE else 0.0
                group.create_task(one(n, late, draw.choice(self.stubs)))
        return answers

    async def run(self, name: str, draw: random.Random | None) -> dict[str, str]:
        """Submit, answer and cancel; the turns' ids by their number."""
        submitted = await self.deliver([_submission(name, n) for n in range(TURNS)], draw)
        ids = [_same(answers, "turn_id") for answers in submitted]
        asks = [_answer(name, id) for id in ids[: TURNS // 2]] + [
            _cancel(name, id) for id in ids[TURNS // 2 :]
        ]
        for id in ids:
            await _until_it_waits(self.stubs[0], id)
        await self.deliver(asks, draw)
        for id in ids:
            waited = await self.stubs[0].WaitTurn(pb.WaitTurnRequest(turn_id=id), timeout=SECONDS)
            assert waited.turn.state == api.TURN_STATE_FINISHED
        return {id: f"{n}" for n, id in enumerate(ids)}


def _submission(name: str, n: int) -> Delivery:
    plan = document(
        call("s1", "ledger_idempotent"),
        call("s2", "ledger_once", "s1"),
        question("ask", "s2"),
        call("s3", "ledger_idempotent", "ask"),
    )
    turn = api.TurnSpec(session_id=f"ses_{name}_{n}", labels={"n": f"{n}"})
    turn.input.add(data_json=plan)
    request = pb.SubmitTurnRequest(turn=turn, idempotency_key=f"{name}-{n}")
    return lambda stub: stub.SubmitTurn(request, timeout=SECONDS)


def _answer(name: str, turn_id: str) -> Delivery:
    request = pb.AnswerStepRequest(
        turn_id=turn_id, step_key="ask", output_json='"yes"', idempotency_key=f"{name}-answer-{turn_id}"
    )
    return lambda stub: stub.AnswerStep(request, timeout=SECONDS)


def _cancel(name: str, turn_id: str) -> Delivery:
    request = pb.CancelTurnRequest(
        turn_id=turn_id, reason="enough", idempotency_key=f"{name}-cancel-{turn_id}"
    )
    return lambda stub: stub.CancelTurn(request, timeout=SECONDS)


async def _until_it_waits(stub: Any, turn_id: str) -> None:
    waited = await stub.WaitTurn(pb.WaitTurnRequest(turn_id=turn_id), timeout=SECONDS)
    assert waited.turn.wait_reason == ev.WAIT_REASON_HUMAN


def _same(answers: list[Any], name: str) -> str:
    """What all copies were told."""
    (told,) = {getattr(answer, name) for answer in answers}
    return told


@pytest.fixture
async def site(tmp_path: Path, database: str) -> AsyncGenerator[Site]:
    ledger = tmp_path / "ledger.jsonl"
    servers = [
        LiveServer(
            tmp_path / name,
            tools="tests.support.ledger:TOOLS",
            database_url=database,
            environment={"LEDGER_FILE": str(ledger)},
        )
        for name in ("owner", "other")
    ]
    try:
        async with AsyncExitStack() as stack:
            site = Site(servers, database, ledger)
            for server in servers:
                await asyncio.to_thread(server.start)
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.grpc))
                site.stubs.append(rpc.TurnServiceStub(channel))
            yield site
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)


@pytest.mark.requirement("R8", "FT10", "I2", "I3", "I6")
async def test_requests_three_times_out_of_order_and_late_leave_what_a_clean_run_leaves(
    site: Site, report: Report
) -> None:
    async with asyncio.timeout(SECONDS):
        runs = {"clean": await site.run("clean", None)}
        for seed in seeds(most=3, sample=1):
            report(seed=seed)
            runs[f"seed{seed}"] = await site.run(f"seed{seed}", random.Random(seed))
        turns = await audit(site.dsn, site.ledger)
    assert len(turns) == TURNS * len(runs)
    left: dict[str, list[Any]] = {}
    for name, ids in runs.items():
        effects = Counter((row["key"], row["tool"]) for row in read_ledger(site.ledger) if row["effect"])
        assert set(effects.values()) == {1}
        left[name] = [
            (
                ids[turn.turn_id],
                turn.outcome,
                len(turn.output),
                turn.effects_done,
                {
                    k: (s.phase, s.attempt, s.output_json.replace(turn.turn_id, ""))
                    for k, s in turn.steps.items()
                },
                sorted(k.removeprefix(turn.turn_id) + t for k, t in effects if k.startswith(turn.turn_id)),
                turn.sequence,
            )
            for turn in sorted((turns[id] for id in ids), key=lambda t: int(ids[t.turn_id]))
        ]
    for name, state in left.items():
        assert state == left["clean"], name
