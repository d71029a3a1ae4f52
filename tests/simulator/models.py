"""A model of the simulator: what it says is drawn from the seed, the step's key and its attempt."""

import asyncio
import itertools
import json
import random
from typing import Any

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm_server.canonical import canonical_json
from kfm_server.models import ModelSpec, Personality
from kfm_server.ports.steps import AttemptResult, CallRecord
from kfm_server.steps.middleware import Handler, Invocation, failed
from kfm_server.turns.replies import AskedCall, Reply

from tests.simulator.ledger import Ledger, Row
from tests.simulator.loop import HOST

MODELS = {"m": ModelSpec("m", "simulated", "m", timeout_seconds=3.0)}
PERSONALITIES = {
    name: Personality(name, planner=planner)
    for name, planner in (("assistant", "hybrid"), ("reactor", "react"), ("planner", "plan"))
}
_TOOLS = ("pure", "idem", "once", "tx", "do")


def make_model(ledger: Ledger, seed: int) -> Handler:
    """The handler of model steps: slow, failing, asking for calls that can be made and some that cannot."""

    async def handle(invocation: Invocation) -> AttemptResult:
        attempt = invocation.attempt
        dice = random.Random(f"{seed}:{attempt.key}:{attempt.attempt}:{attempt.epoch}")
        row = Row("model", attempt.key, attempt.attempt, attempt.epoch, asyncio.get_running_loop().time())
        row.host = HOST.get()
        ledger.rows.append(row)
        ledger.on_start(row)
        try:
            await asyncio.sleep(dice.choice((0.0, 0.004, 0.3, 1.0, 4.0)) * dice.random())
            invocation.progress("so far", "text")
            if dice.random() < 0.15:
                wait = {"retry_after_ms": "700"} if dice.random() < 0.5 else {}
                return failed("REASON_PROVIDER_UNAVAILABLE", "away", retryable=dice.random() < 0.8, **wait)
            row.done = True
        finally:
            row.left = True
        recipe = attempt.recipe
        assert recipe is not None
        reply = _plan(dice) if recipe.purpose == "plan" else _reply(dice, len(recipe.rounds))
        used = types.Usage(input_tokens=dice.randrange(100), output_tokens=dice.randrange(100), model_calls=1)
        return AttemptResult(
            ev.STEP_STATUS_SUCCEEDED, canonical_json(reply.value()), call=CallRecord("m", "req", "", used)
        )

    return handle


def _reply(dice: random.Random, rounds: int) -> Reply:
    if rounds > 3 or dice.random() < 0.3 + rounds * 0.2:
        return Reply("That is all.")
    return Reply("", tuple(_call(dice) for _ in range(dice.randint(1, 3))))


def _call(dice: random.Random) -> AskedCall:
    draw = dice.random()
    if draw < 0.1:
        return AskedCall("nothing", "{}")
    if draw < 0.15:
        return AskedCall("idem", "{not json")
    return AskedCall(dice.choice(_TOOLS), json.dumps(_arguments(dice)))


def _plan(dice: random.Random) -> Reply:
    if dice.random() < 0.2:
        return Reply("I would rather not plan.")
    steps: list[dict[str, Any]] = [
        {"key": f"s{n}", "tool": dice.choice((*_TOOLS, "nothing")), "arguments": _arguments(dice)}
        for n in range(dice.randint(0, 3))
    ]
    for before, step in itertools.pairwise(steps):
        if dice.random() < 0.5:
            step["depends_on"] = [before["key"]]
    return Reply(json.dumps({"steps": steps}))


def _arguments(dice: random.Random) -> dict[str, float]:
    return {"fail": dice.choice((0.0, 0.0, 0.5)), "slow": dice.choice((0.0, 0.05, 1.0))}
