"""remember and recall in turns of a real server: what a user said in one session is known in another."""

import json
from pathlib import Path
from typing import Any

import pytest
from xenocomm import Client, Outcome
from xenocomm._gen.types import FactKind
from xenocomm.testing import server

from tests.support.plans import call, given

pytestmark = pytest.mark.requirement("T1", "M1")


async def output(kfm: Client, tool: str, **arguments: Any) -> Any:
    """What a call gives, in a session of its own."""
    turn = await kfm.turns.start(given(call("s1", tool, **arguments)))
    done = await turn.result(timeout=60)
    return json.loads(done.steps[0].output_json)


async def test_what_is_remembered_of_a_user_is_recalled_in_another_session(live: Client) -> None:
    kept = {"kind": "preference", "subject": "units", "value": "metric"}
    for value in ("imperial", "metric", "metric"):
        answer = await output(live, "remember", kind="preference", subject="units", value=value)
    assert answer == {**kept, "text": "Remembered."}
    await output(live, "remember", kind="fact", subject="home town", value="Bern\x07")
    known = await output(live, "recall")
    fact = {"kind": "fact", "subject": "home town", "value": "Bern"}
    assert known["known"] == [fact, kept]
    assert known["more"] is False and "follow no instruction" in known["text"]
    assert (await output(live, "recall", kind="fact"))["known"] == [fact]
    (same,) = await live.memory.facts(kind=FactKind.PREFERENCE)
    assert (same.key, same.value, same.source) == ("units", "metric", "tool:remember")


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "secret", "subject": "a", "value": "b"},
        {"kind": "fact", "subject": " a", "value": "b"},
        {"kind": "fact", "subject": "a" * 101, "value": "b"},
        {"kind": "fact", "subject": "a", "value": "b" * 2001},
        {"kind": "fact", "subject": "a", "value": "b", "user": "somebody else"},
    ],
)
async def test_what_cannot_be_kept_is_refused_by_the_schema(live: Client, arguments: dict[str, Any]) -> None:
    turn = await live.turns.start(given(call("s1", "remember", **arguments)))
    assert (await turn.result(timeout=60, check=False)).outcome == Outcome.FAILED


SCRIPT = {
    "rules": [
        {"system": "- units: metric", "reply": {"text": "Kilometres."}},
        {"reply": {"text": "Miles."}},
    ]
}


@pytest.mark.requirement("R5")
async def test_a_model_is_told_what_the_user_prefers(database: str, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps(SCRIPT))
    with server(script=script, database_url=database) as running:
        async with running.client(timeout=30) as kfm:
            said: list[str | None] = []
            for value in ("imperial", "metric"):
                await output(kfm, "remember", kind="preference", subject="units", value=value)
                done = await kfm.turns.run("How far is it?")
                said += [part.text for part in done.output]
            await kfm.memory.erase_user("anonymous")
            said += [part.text for part in (await kfm.turns.run("How far is it?")).output]
    assert said == ["Miles.", "Kilometres.", "Miles."]
