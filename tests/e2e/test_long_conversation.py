"""A conversation of 200 turns: its prompts stay within the budget, it remembers, and it costs the same per turn at its end."""

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from xenocomm.testing import server

pytestmark = [pytest.mark.requirement("R5"), pytest.mark.timeout(180)]
TURNS = 200
CONTEXT, OUTPUT = 2_000, 200
LONG = "word " * 100
SCRIPT = {
    "rules": [
        {"user": "dog called", "system": "My dog is called Bruno", "reply": {"text": "Bruno."}},
        {"user": "dog called", "reply": {"text": "I do not know."}},
        {"reply": {"text": f"Well. {LONG}"}},
    ]
}
CONFIG = f"""
[models.small]
provider = "scripted"
model = "small"
script = "SCRIPT"
context_tokens = {CONTEXT}
max_output_tokens = {OUTPUT}
[personalities.narrow]
planner = "react"
models = ["small"]
tools = []
"""


async def test_200_turns_stay_within_the_budget_and_remember_turn_3(database: str, tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps(SCRIPT))
    config = CONFIG.replace("SCRIPT", str(script))
    with server(script=script, config=config, database_url=database) as running:
        async with running.client(timeout=30) as kfm:
            session, sizes = "", list[int]()
            connection: Any = await asyncpg.connect(database)
            for n in range(TURNS):
                said = "My dog is called Bruno." if n == 2 else f"Tell me of {n}. {LONG}"
                last = await kfm.turns.run(said, personality="narrow", session_id=session)
                session = last.session_id
                assert last.usage is not None and last.usage.input_tokens <= CONTEXT - OUTPUT
                if n in (19, 109, TURNS - 1):
                    sizes.append(await connection.fetchval("select sum(length(envelope)) from kfm.journal"))
            asked = await kfm.turns.run("What is my dog called?", personality="narrow", session_id=session)
            await connection.close()
    assert [part.text for part in asked.output] == ["Bruno."]
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    assert second == pytest.approx(first, rel=0.02), "90 turns early on and 90 late take the same"
