"""kill -9 at every failpoint that a turn planned by a model passes, with the model behind real HTTP."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfm_server.journal import embedded
from xenocomm._gen.types import Outcome, StepKind, Turn, TurnState

from tests.faults.auditor import audit
from tests.faults.test_failpoints import MODEL_POINTS, sampled
from tests.faults.work import Watched, run_and_watch
from tests.support.ledger import read_ledger
from tests.support.live import LiveServer
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.requirement("R8", "R3", "P1")

CALLS = ("ledger_idempotent", "ledger_transactional")
SCRIPT = (
    {"step": 0, "reply": {"text": "I look.", "tools": [{"name": name, "arguments": {}} for name in CALLS]}},
    {"reply": {"text": "Both are written down.", "chunks": 4}},
)
OTHERS = (
    *(f"journal.append.{when}:{nth}" for when in ("before", "after") for nth in (1, 2, 3)),
    *(f"lane.dispatch.{when}:{nth}" for when in ("before", "after") for nth in (1, 2, 4)),
    "lane.tell.after:2",
    "tool.start.before:1",
    "tool.result:1",
)
RECOVERY_SECONDS = {"openai": 5.0, "litellm": 15.0}
"""LiteLLM alone takes seconds to import, on the first call of each process."""


def points() -> list[tuple[str, str]]:
    """(adapter, failpoint): all of them for the direct adapter, those of the call itself for LiteLLM."""
    of_the_call = [f"{name}:{nth}" for name in MODEL_POINTS for nth in (1, 2)]
    every = [("openai", point) for point in (*of_the_call, *OTHERS)]
    return sampled([*every, *(("litellm", point) for point in of_the_call)])


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    """The development server of models; it outlives the servers that call it."""
    server = ModelServer(token="key-of-the-stub")
    server.start()
    yield server
    server.stop()


def configure(home: Path, adapter: str, models: ModelServer) -> None:
    """One model behind HTTP and the planner that calls its tools natively."""
    home.mkdir(parents=True, exist_ok=True)
    model = "scripted" if adapter == "openai" else "openai/scripted"
    home.joinpath("config.toml").write_text(
        f"""
[models.small]
provider = "{adapter}"
model = "{model}"
base_url = "{models.url}"
api_key = "env:STUB_KEY"

[personalities.assistant]
planner = "react"
"""
    )


@pytest.mark.parametrize(("adapter", "failpoint"), points())
async def test_a_turn_that_a_model_plans_survives_a_kill_at_every_failpoint(
    adapter: str, failpoint: str, tmp_path: Path, model_server: ModelServer
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    home = tmp_path / "home"
    configure(home, adapter, model_server)
    model_server.play(*SCRIPT)
    environment = {"LEDGER_FILE": str(ledger), "STUB_KEY": "key-of-the-stub"}
    server = LiveServer(home, tools="tests.support.ledger:TOOLS", environment=environment)
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.kill)
    watched = Watched()
    try:
        await asyncio.to_thread(server.start, failpoint=failpoint)
        watching = asyncio.create_task(
            run_and_watch(server.grpc, "one-turn", "Write it down twice.", watched), name="watcher"
        )
        died = await asyncio.to_thread(server.await_death, 20.0)
        assert died, f"{failpoint} was never hit: {watched.sequences}\n{server.log_tail()}"
        await asyncio.to_thread(server.start)
        restarted = time.monotonic()
        turn = await watching
        took = time.monotonic() - restarted
        assert took < RECOVERY_SECONDS[adapter], f"it took {took:.1f} s after the restart"
    finally:
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.log_tail()
    postgres = await embedded.start(server.home)
    try:
        turns = await audit(postgres.dsn, ledger, {watched.turn_id: watched.sequences})
    finally:
        await postgres.stop()
    assert list(turns) == [watched.turn_id], "the same key started more than one turn"
    assert (turn.state, turn.outcome) == (TurnState.FINISHED, Outcome.SUCCEEDED), turn.error
    assert [part.text for part in turn.output] == ["Both are written down."]
    assert {call["tool"] for call in read_ledger(ledger)} == set(CALLS)
    check_bill(turn, model_server)


def check_bill(turn: Turn, models: ModelServer) -> None:
    """Each call that answered is billed once; one whose answer was lost with its process is counted, at no price."""
    attempts = [
        a for s in turn.steps if s.definition and s.definition.kind == StepKind.MODEL for a in s.attempts
    ]
    told = [a for a in attempts if a.usage is not None]
    assert len({a.provider_request_id for a in told}) == len(told), "a call was billed twice"
    assert turn.usage is not None
    assert turn.usage.model_calls == len(attempts)
    assert turn.usage.output_tokens == sum(a.usage.output_tokens for a in told if a.usage)
    assert len(told) <= models.count() <= len(attempts), "a layer below the engine tried again"
