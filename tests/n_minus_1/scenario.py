"""A client of either release: asks a server for all that both can do, and prints what came as JSON.

    python scenario.py HOST:PORT NAME

It is run by the interpreter of one release, so it may use only what the SDK of both has. NAME goes into its keys.
"""

import asyncio
import json
import sys
import warnings
from typing import Any

from xenocomm import Client, errors

SECONDS = 30.0
QUESTION = {"key": "ask", "kind": "human", "instructions": "May it?"}


def tool(key: str, name: str, *after: str, **arguments: Any) -> dict[str, Any]:
    """A step of a plan."""
    return {"key": key, "kind": "tool", "tool": name, "arguments": arguments, "depends_on": [*after]}


def plan(*steps: dict[str, Any]) -> dict[str, Any]:
    """A message that brings its plan."""
    return {"plan": {"steps": [*steps]}}


def word(value: object) -> str:
    """The name of an enum's member; members that this release does not know are numbers."""
    return str(getattr(value, "name", value))


async def main(endpoint: str, name: str) -> dict[str, Any]:
    """Everything once; what it answers is the same whatever the releases."""
    told: dict[str, Any] = {}
    async with Client(endpoint, timeout=SECONDS) as kfm:
        turn = await kfm.turns.run("what is (17 + 5) * 3 / 2 ?", wait=SECONDS)
        told["run"] = [turn.output[0].text, word(turn.state), word(turn.outcome)]

        first = await kfm.turns.start("what is 1 + 1 ?", idempotency_key=f"{name}-key")
        again = await kfm.turns.start("what is 1 + 1 ?", idempotency_key=f"{name}-key")
        told["same key"] = first.id == again.id
        try:
            await kfm.turns.start("what is 2 + 2 ?", idempotency_key=f"{name}-key")
        except errors.IdempotencyConflict as refused:
            told["key of another"] = refused.reason
        told["idempotent run"] = word((await first.result(timeout=SECONDS)).outcome)

        contracts = ("pure", "idempotent", "transactional", "once", "compensatable")
        steps = [tool(f"s{n}", f"ledger_{c}", *([f"s{n - 1}"] if n else [])) for n, c in enumerate(contracts)]
        handle = await kfm.turns.start(plan(*steps), labels={"team": name}, watch=True)
        events = [event async for event in handle.events(timeout=SECONDS)]
        told["events"] = sorted({type(event.event).__name__ for event in events})
        told["sequences"] = [e.sequence for e in events] == list(range(1, len(events) + 1))
        done = await handle.get()
        told["steps"] = [
            (s.definition.key if s.definition else "", word(s.state), len(s.attempts)) for s in done.steps
        ]
        told["history"] = [e.sequence async for e in kfm.turns.history(handle.id, page_size=4)] == [
            e.sequence for e in events
        ]
        async for event in kfm.events.watch(labels={"team": name}, start="beginning"):
            told["event across turns"] = event.turn_id == handle.id
            break
        fork = await handle.fork("s3")
        told["fork"] = word((await fork.result(timeout=SECONDS)).outcome)

        asked = await kfm.turns.start(plan(QUESTION, tool("then", "ledger_once", "ask")))
        async for event in asked.events(timeout=SECONDS):
            if getattr(getattr(event.event, "wait_reason", None), "name", "") == "HUMAN":
                break
        told["explained"] = [word(wait.reason) for wait in (await asked.explain()).waits]
        await asked.answer("ask", '"yes"')
        told["answered"] = word((await asked.result(timeout=SECONDS)).outcome)

        held = await kfm.turns.start(plan(QUESTION))
        told["paused"] = word((await held.pause("wait")).wait_reason)
        await held.resume()
        await held.cancel("enough")
        told["cancelled"] = word((await held.result(timeout=SECONDS, check=False)).outcome)
        try:
            await held.cancel()
        except errors.TurnFinished as refused:
            told["cancelled twice"] = refused.reason

        failing = await kfm.turns.start(plan(tool("s1", "calculator", expression="1/0")))
        failed = await failing.result(timeout=SECONDS, check=False)
        told["failed"] = [word(failed.outcome), failed.error.reason if failed.error else ""]
        retried = await failing.retry()
        told["retried"] = word((await retried.result(timeout=SECONDS, check=False)).outcome)

        for wrong, call in (
            ("missing turn", kfm.turns.get("turn_nope")),
            ("bad plan", kfm.turns.run(plan(tool("s1", "no_such_tool")), wait=SECONDS)),
            ("bad key", kfm.turns.start("hello", idempotency_key="with a blank")),
            ("missing session", kfm.sessions.get("ses_nope")),
            ("missing letter", kfm.dead_letters.get("dl_nope")),
        ):
            try:
                await call
            except errors.XenocommError as refused:
                told[wrong] = [type(refused).__name__, refused.reason]
        page = await kfm.turns.list(page_size=3).page()
        told["listed"] = len(page.items)
        session = await kfm.sessions.get(turn.session_id)
        told["session"] = session.session_id == turn.session_id
        told["said"] = [word(m.role) async for m in kfm.sessions.messages(turn.session_id)]
        told["letters"] = [letter async for letter in kfm.dead_letters.list()]
        # Which others come along is a release's own affair.
        told["personalities"] = [p.name for p in await kfm.personalities.list() if p.is_default]
        told["config"] = "partitions" in {s.name for s in (await kfm.server.config()).values}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            info = await kfm.server_info()
        told["info"] = bool(info.version)
        told["skew"] = [str(warning.message) for warning in caught]
    return told


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
