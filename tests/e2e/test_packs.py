"""Personality packs in a server that runs: loaded, edited while turns run, refused with a line, and run in the sandbox."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path

import pytest
from xenocomm import Client
from xenocomm._gen.errors import PersonalityNotFound
from xenocomm._gen.types import Outcome, Pack

from tests.support.live import LiveServer, a_moment
from tests.support.plans import Gate, call, given, started, until

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K1", "K2"), pytest.mark.timeout(120)]
SECONDS = 30.0
MANIFEST = """\
name: {name}
version: {version}
description: Tells which version of it runs.
uses: ["*", ask_person]
prompts: {{system: prompts/system.md}}
tools:
  - name: which
    description: Which version this is.
    source: tools/which.py
    input_schema:
      type: object
      properties: {{times: {{type: integer, minimum: 1}}}}
      required: [times]
"""


def write_pack(directory: Path, version: str, **others: str) -> None:
    """A pack that tells its version."""
    files = {
        "manifest.yaml": MANIFEST.format(name=directory.name, version=version),
        "prompts/system.md": "You are {{name}}, version {{version}}.",
        "tools/which.py": f"def which(times):\n    return {{'version': '{version}' * times}}\n",
    }
    for path, text in (files | others).items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)


@pytest.fixture(scope="module")
def server(module_database: str) -> Generator[LiveServer]:
    """A server with one pack of the user's."""
    home = Path(tempfile.mkdtemp(prefix="kfm-packs-"))
    home.chmod(0o755)
    server = LiveServer(
        home,
        tools="tests.support.ledger:TOOLS",
        database_url=module_database,
        environment={"LEDGER_FILE": str(home / "l")},
    )
    write_pack(home / "personalities" / "teller", "1.0.0")
    try:
        server.start()
        yield server
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def client(server: LiveServer) -> AsyncIterator[Client]:
    async with Client(server.grpc, timeout=SECONDS) as client:
        yield client


async def pack(client: Client, name: str, wanted: Callable[[Pack], bool]) -> Pack:
    """The pack, once it is as wanted; bounded."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = [p for p in await client.personalities.packs() if p.name == name]
            if found and wanted(found[0]):
                return found[0]
            await a_moment()


async def which(client: Client, personality: str, times: int = 1) -> tuple[int, str]:
    turn = await client.turns.start(given(call("s", "which", times=times)), personality=personality)
    result = await turn.result(check=False)
    return result.outcome, json.dumps([p.data_json or p.text for p in result.output])


async def test_a_packs_tool_runs_in_a_turn_and_nowhere_else(client: Client) -> None:
    outcome, said = await which(client, "teller", times=2)
    assert (outcome, "1.0.01.0.0" in said) == (Outcome.SUCCEEDED, True), said
    outcome, said = await which(client, "teller@1.0.0")
    assert outcome == Outcome.SUCCEEDED, "of the version that is in force"
    with pytest.raises(PersonalityNotFound):
        await which(client, "teller@1.0.1")
    outcome, said = await which(client, "assistant")
    assert outcome != Outcome.SUCCEEDED, "another personality has no such tool"
    outcome, said = await which(client, "teller", times=0)
    assert outcome != Outcome.SUCCEEDED, "its arguments are held against its schema"


async def test_a_running_turn_keeps_the_pack_that_it_began_with(
    client: Client, server: LiveServer, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    before = await pack(client, "teller", lambda p: bool(p.version))
    plan = given(call("first", "ledger_pure", hold=gate.hold), call("second", "which", "first", times=1))
    running = await client.turns.start(plan, personality="teller")
    await until(running, started("first"))
    write_pack(server.home / "personalities" / "teller", "1.1.0")
    after = await pack(client, "teller", lambda p: p.version == "1.1.0")
    assert after.digest != before.digest
    _, said = await which(client, "teller")
    assert "1.1.0" in said, "the next turn takes the new one"
    gate.open()
    result = await running.result()
    assert result.outcome == Outcome.SUCCEEDED
    assert before.version in json.dumps([p.data_json or p.text for p in result.output])


async def test_a_broken_edit_changes_nothing_and_says_the_line(client: Client, server: LiveServer) -> None:
    directory = server.home / "personalities" / "broken"
    write_pack(directory, "1.0.0")
    good = await pack(client, "broken", lambda p: p.version == "1.0.0")
    text = (directory / "manifest.yaml").read_text().replace("uses:", "usse:")
    (directory / "manifest.yaml").write_text(text)
    bad = await pack(client, "broken", lambda p: bool(p.problems))
    assert bad.problems == ("manifest.yaml:4: usse: unknown key; did you mean uses?",)
    assert bad.digest == good.digest
    assert (await which(client, "broken"))[0] == Outcome.SUCCEEDED
    shutil.rmtree(directory)
    async with asyncio.timeout(SECONDS):
        while any(p.name == "broken" for p in await client.personalities.packs()):
            await a_moment()
    with pytest.raises(PersonalityNotFound):
        await which(client, "broken")


async def test_one_is_shown_with_what_it_is_told(client: Client) -> None:
    found = await client.personalities.get("teller")
    assert found.pack is not None and found.personality is not None
    assert found.instructions == f"You are teller, version {found.pack.version}."
    assert {"ask_person", "calculator", "todo_store"} < set(found.personality.tools)
    assert found.personality.tools[-1] == "which"
    with pytest.raises(PersonalityNotFound):
        await client.personalities.get("nobody")


async def test_a_packs_own_knowledge_is_found_in_its_turns_alone(client: Client, server: LiveServer) -> None:
    manifest = MANIFEST.replace("\nprompts", "\nknowledge: {{files: [knowledge/*.md]}}\nprompts")
    write_pack(
        server.home / "personalities" / "learned",
        "1.0.0",
        **{
            "manifest.yaml": manifest.format(name="learned", version="1.0.0"),
            "knowledge/owls.md": "# Owls\nThe snowy owl nests on the ground.",
        },
    )
    await pack(client, "learned", lambda p: p.version == "1.0.0")
    plan = given(call("s", "knowledge_search", query="where does the snowy owl nest"))
    for personality, finds in (("learned", True), ("teller", False)):
        turn = await client.turns.start(plan, personality=personality)
        result = await turn.result()
        said = json.dumps([p.data_json or p.text for p in result.output])
        assert ("nests on the ground" in said) == finds, (personality, said)
