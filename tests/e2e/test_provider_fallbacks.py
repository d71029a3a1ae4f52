"""FT20 with a chain of models: who is asked next, what each call costs, and when nobody is asked. Over real HTTP."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from xenocomm import Client
from xenocomm._gen.types import Outcome, Turn

from tests.e2e.test_model_turns import models_of
from tests.support.live import LiveServer
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.requirement("P2")

ANSWER = {"reply": {"text": "Here you are.", "input_tokens": 100, "output_tokens": 10}}


def attempts(turn: Turn) -> list[tuple[str, str]]:
    """Of its first model step: which model each asked, by the name it was told, and why it failed."""
    found: list[tuple[str, str]] = []
    for attempt in models_of(turn)[0].attempts:
        error = attempt.error
        found.append((error.metadata["model"], error.reason) if error else (attempt.model, ""))
    return found


def doctor(server: LiveServer) -> tuple[int, dict[str, str]]:
    """Exit code of `kfm doctor`, and what it says of the checks that failed."""
    command = [Path(sys.executable).with_name("kfm"), "doctor", "--endpoint", server.grpc, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=server.home, check=False)
    checks = json.loads(done.stdout)
    return done.returncode, {check["check"]: check["detail"] for check in checks if not check["ok"]}


def asked(model_server: ModelServer) -> list[str]:
    return [request["body"]["model"] for request in model_server.requests()]


CHAINS = {"chained": "chained", "claude-chained": "claude-sonnet-4-5", "llama-chained": "llama3"}
"""Models that fall back to `spare`, by their names, and by those that their providers know them by."""


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(
    ("failure", "reason", "input_tokens"),
    [
        ({"kind": "status", "status": 429, "retry_after": "60"}, "REASON_PROVIDER_RATE_LIMITED", None),
        ({"kind": "status", "status": 500}, "REASON_PROVIDER_UNAVAILABLE", None),
        ({"kind": "status", "status": 401}, "REASON_PROVIDER_REJECTED", None),
        ({"kind": "context_overflow"}, "REASON_CONTEXT_OVERFLOW", None),
        ({"kind": "cut", "after_chunks": 1}, "REASON_PROVIDER_UNAVAILABLE", True),
        ({"kind": "bad_json", "after_chunks": 1}, "REASON_MODEL_REPLY_INVALID", True),
        ({"kind": "stall", "after_chunks": 1}, "REASON_STEP_TIMEOUT", True),
    ],
    ids=["429", "500", "401", "overflow", "cut", "bad-json", "slow"],
)
async def test_the_next_attempt_asks_the_next_model_and_each_call_costs_what_it_costs(
    chain: str,
    failure: dict[str, Any],
    reason: str,
    input_tokens: bool | None,
    model_live: Client,
    model_server: ModelServer,
) -> None:
    if chain != "chained" and failure["kind"] == "stall":
        pytest.skip("its timeout is not a second: test_provider_failures.py has slow ones of all providers")
    if chain != "chained" and failure["kind"] == "bad_json":
        reason = (
            "REASON_PROVIDER_UNAVAILABLE"  # LiteLLM skips what it cannot read, and then nothing more came
        )
    model_server.play({"model": f"^{CHAINS[chain]}$", "failure": failure, **ANSWER}, ANSWER)
    turn = await model_live.turns.run("Hello", personality=f"{chain}-react", check=False)
    assert turn.outcome == Outcome.SUCCEEDED, turn.error
    assert attempts(turn) == [(chain, reason), ("spare", "")]
    assert asked(model_server) == [CHAINS[chain], "spare"], "one request an attempt"
    first, second = models_of(turn)[0].attempts
    used = first.usage
    assert used is None or used.cost_nanos == 1000 * used.input_tokens + 2000 * used.output_tokens
    assert second.usage.cost_nanos == 100 * 30_000 + 10 * 40_000
    lost = first.usage.cost_nanos if first.usage else 0
    assert (lost > 0) == bool(input_tokens), "what had begun to answer is estimated, at its own price"
    assert turn.usage is not None and turn.usage.cost_nanos == lost + second.usage.cost_nanos
    assert turn.usage.model_calls == 2


async def test_an_endpoint_that_keeps_failing_is_left_alone_and_nothing_is_counted_for_it(
    model_live: Client, model_live_server: LiveServer, model_server: ModelServer
) -> None:
    model_server.play({"model": "^fragile$", "failure": {"kind": "status", "status": 503}}, ANSWER)
    for _ in range(5):
        await model_live.turns.run("Hello", personality="fragile-react")
    assert asked(model_server).count("fragile") == 5
    turn = await model_live.turns.run("Hello", personality="fragile-react")
    assert asked(model_server).count("fragile") == 5, "its breaker is open"
    assert attempts(turn) == [("spare", "")], "within the same attempt: nothing was asked before"
    assert turn.usage is not None and turn.usage.model_calls == 1
    shown = await asyncio.to_thread(model_live_server.metrics)
    assert 'kfm_model_breaker{model="fragile"} 2.0' in shown
    assert 'kfm_model_breaker{model="spare"} 0.0' in shown
    assert 'kfm_model_fallbacks_total{model="fragile",to="spare"} 6.0' in shown
    ready = json.loads(await asyncio.to_thread(model_live_server.get, "/health/ready"))
    assert (ready["status"], ready["parts"]["models"]) == ("ready", False), "it serves, and says so"
    code, told = await asyncio.to_thread(doctor, model_live_server)
    assert (code, told["models"]) == (1, "fragile failed 5 times in a row")


async def test_an_equal_call_is_answered_from_memory_for_nothing_and_says_so(
    model_live: Client, model_server: ModelServer
) -> None:
    model_server.play(ANSWER)
    turns = [await model_live.turns.run("Hello again", personality="kept-react") for _ in range(3)]
    # A prompt tells the minute: of three in a row, one pair at least is of the same.
    calls = [models_of(turn)[0].attempts[0] for turn in turns]
    hits = [call for call in calls if call.provider_request_id.startswith("cache:")]
    assert 1 <= len(hits) == 3 - model_server.count()
    assert all(hit.usage.cost_nanos == hit.usage.input_tokens == hit.usage.model_calls == 0 for hit in hits)
    assert {turn.output[0].text for turn in turns} == {"Here you are."}
    assert sum(turn.usage.model_calls for turn in turns if turn.usage) == model_server.count()
