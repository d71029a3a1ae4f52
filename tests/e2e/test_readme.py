"""What the readme tells people to type does what it says."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from kfm.type.v1.type_pb2 import Part
from kfm_server.secret import Secret
from kfm_server.settings import KEYS, Config
from kfm_server.settings.schema import default_of
from kfm_server.tools.registry import ToolRegistry
from kfm_server.turns.planners import rules
from kfm_server.turns.planners.types import Planned

from tests.e2e.test_first_turn import command
from tests.support import forking
from tests.support.live import LiveServer
from tests.support.model_server import ModelServer

pytestmark = pytest.mark.requirement("E5", "E6")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MODELLED = ("Models\n", "The SDK\n")
"""Sections whose calls need a model."""


def blocks(language: str, *, modelled: bool) -> list[str]:
    """The blocks of a language in the sections that need a model, or in the others."""
    sections = README.split("\n## ")
    text = "\n".join(s for s in sections if s.startswith(MODELLED) == modelled)
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for of, block in found if of == language]


def shell(*, modelled: bool) -> list[str]:
    """Blocks of commands that are to work as they stand; what starts a server is not among them."""
    start = r"\.venv/bin/(kfm|buf) (?!model-server)"
    return [block for block in blocks("", modelled=modelled) if re.match(start, block)]


TOKEN = "s3cret-token"


@pytest.fixture(scope="module")
def server() -> Generator[LiveServer]:
    """A server with the readme's tool, guarded by a token."""
    home = Path(tempfile.mkdtemp(prefix="kfm-readme-"))
    home.chmod(0o755)
    paths = {"PYTHONPATH": str(ROOT / "examples"), "KFM_TOKEN": TOKEN}
    server = LiveServer(home, tools="announce:TOOLS", environment=paths)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def modelled() -> Generator[LiveServer]:
    """A server configured as the readme says, beside the model server that it says to start."""
    models = ModelServer()
    home = Path(tempfile.mkdtemp(prefix="kfm-readme-"))
    home.chmod(0o755)
    server = LiveServer(home, environment={"KFM_TOKEN": TOKEN})
    try:
        models.start()
        [config] = blocks("toml", modelled=True)
        assert "http://127.0.0.1:7700/v1" in config
        (home / "config.toml").write_text(config.replace("http://127.0.0.1:7700/v1", models.url))
        server.start()
        yield server
    finally:
        server.stop()
        models.stop()
        shutil.rmtree(home, ignore_errors=True)


def test_the_readme_has_calls_of_every_client() -> None:
    assert [len(shell(modelled=m)) for m in (False, True)] == [6, 1]
    assert [len(blocks("python", modelled=m)) for m in (False, True)] == [2, 1]


def test_the_configuration_of_the_readme_is_one(tmp_path: Path) -> None:
    [text] = blocks("toml", modelled=False)
    (tmp_path / "config.toml").write_text(text)
    config = Config.load({}, path=tmp_path / "config.toml", environment={"OPENAI_API_KEY": "sk-1"})
    assert config.settings.models["small"].input_nanos == 250


def commands(block: str) -> list[str]:
    """The commands of a block; one that goes on over lines is one."""
    return re.findall(r"^\.venv/bin/.*?(?=^\.venv/bin/|\Z)", block, re.DOTALL | re.MULTILINE)


@pytest.mark.requirement("R4")
@pytest.mark.parametrize("block", shell(modelled=False))
async def test_the_commands_of_the_readme_work_one_after_the_other(server: LiveServer, block: str) -> None:
    turn = out = ""
    for typed in commands(block):
        line = typed.replace("127.0.0.1:50051", server.grpc)
        line = line.replace(".venv/bin/kfm ", f"{shlex.join(forking.kfm())} ")
        if "Bearer" not in line:
            line = line.replace(
                "buf curl", """buf curl -H "authorization: Bearer $KFM_TOKEN" --reflect-header '*'"""
            )
        waits = '"human"' in line or '"timeout_ms": 200' in line
        known = {"KFM_ENDPOINT": server.grpc, "KFM_TOKEN": TOKEN, "TURN": turn}
        code, out, err = await command("sh", "-c", line, **known)
        assert code == (7 if waits else 0), f"{typed}: {out} {err}"
        turn = json.loads(out)["turn_id"] if "kfm run" in typed else turn
    assert "SUCCEEDED" in out or "schemaRelease" in out, out


@pytest.mark.parametrize("source", blocks("python", modelled=False))
async def test_the_python_of_the_readme_works(server: LiveServer, source: str) -> None:
    code, out, err = await command(sys.executable, "-c", source, KFM_ENDPOINT=server.grpc, KFM_TOKEN=TOKEN)
    assert code == 0, err
    assert ("TurnEvent.v1" in out and "buy milk" in out) or "42" in out


@pytest.mark.requirement("R3", "P1")
async def test_the_readme_shows_a_turn_that_a_model_plans(modelled: LiveServer) -> None:
    known = {"KFM_ENDPOINT": modelled.grpc, "KFM_TOKEN": TOKEN}
    [typed] = shell(modelled=True)
    code, out, err = await command("sh", "-c", typed, **known)
    assert code == 0, err
    turn = json.loads(out)
    assert [step["definition"]["key"] for step in turn["steps"]] == ["m1", "m1.c1", "m1.c2", "m2"]
    assert "51" in turn["output"][0]["text"]
    [source] = blocks("python", modelled=True)
    code, out, err = await command(sys.executable, "-c", source, **known)
    assert code == 0, err
    assert "Sum(terms=[2.0, 3.0], result=5.0)" in out and "Usage(" in out


@pytest.mark.requirement("T1")
async def test_the_example_tool_says_what_it_is_told(server: LiveServer) -> None:
    plan = {"plan": {"steps": [{"key": "say", "tool": "announce", "arguments": {"text": "Hark!"}}]}}
    known = {"KFM_ENDPOINT": server.grpc, "KFM_TOKEN": TOKEN}
    code, _, err = await command(
        str(Path(sys.executable).parent / "kfm"), "run", "--data", json.dumps(plan), **known
    )
    assert code == 0, err
    assert "Hark!" in server.log_tail(1000)


@pytest.mark.requirement("R3")
def test_every_wording_that_the_readme_names_is_planned() -> None:
    paragraph = README.partition("## Plans\n")[2].partition("Or a client")[0]
    wordings = [w for w in re.findall(r"`([^`]+)`", paragraph) if w != "rules"]
    assert len(wordings) == 7
    catalogue = ToolRegistry().catalogue
    for wording in wordings:
        assert isinstance(rules.plan((Part(text=wording),), catalogue), Planned), wording


@pytest.mark.requirement("E1")
def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(KFM_\w+)` \|(?: `([^`]*)`)? \|", README, re.MULTILINE))
    defaults = {key.variable: _shown(default_of(key)) for key in KEYS if "." not in key.name}
    assert rows == defaults


def _shown(default: object) -> str:
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "" if isinstance(default, Secret) else str(default)


def test_the_readme_lists_every_exit_code() -> None:
    rows = set(re.findall(r"^\| (\d+) \|", README.partition("## Exit codes")[2], re.MULTILINE))
    table = (ROOT / "docs/reference/errors.md").read_text()
    used = set(re.findall(r"^\| \d+ \| `\w+` \| \d+ \| \d+ \| (\d+) \|", table, re.MULTILINE))
    assert used
    assert used | {"0", "130"} == rows


@pytest.mark.requirement("E1")
@pytest.mark.parametrize("token", ["", "s3cret"])
async def test_what_dev_prints_can_be_pasted_and_shows_no_token(
    live_server: LiveServer, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    home = live_server.home / f"dev{len(token)}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
    addresses = {"KFM_GRPC_ADDRESS": "127.0.0.1:0", "KFM_HTTP_ADDRESS": "127.0.0.1:0"}
    server = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "kfm"), "dev"),
        env=clean | addresses | {"KFM_HOME": str(home), "KFM_TOKEN": token},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert server.stdout is not None
        async with asyncio.timeout(30):
            said = (await server.stdout.readuntil(b"/health/ready\n")).decode()
        assert not token or token not in said
        calls = [line.strip() for line in said.splitlines() if line.startswith("  ")]
        assert len(calls) == 6
        for call in (line for line in calls if not line.startswith(("export", "grpcurl", "curl"))):
            code, out, err = await command("sh", "-c", f"{calls[0]}\n{call}", KFM_TOKEN=token)
            assert (code, "SUCCEEDED" in out) == (0, True), f"{call}: {err}"
    finally:
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await server.wait()
