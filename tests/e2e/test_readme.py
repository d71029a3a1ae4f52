"""What the readme tells people to type does what it says."""

import asyncio
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.test_first_turn import command
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("E5", "E6")

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
LINES = [
    line
    for language, block in BLOCKS
    if not language
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith((".venv/bin/kfm run", ".venv/bin/buf curl"))
]


def test_the_readme_has_calls_of_every_client() -> None:
    assert len([line for line in LINES if line.startswith(".venv/bin/kfm")]) == 3
    assert len([line for line in LINES if line.startswith(".venv/bin/buf")]) == 1


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
        async with asyncio.timeout(20):
            await server.wait()


@pytest.mark.parametrize("line", LINES)
async def test_a_command_of_the_readme_works(live_server: LiveServer, line: str) -> None:
    # Other tests share the server, and one of them uses the readme's key for another body.
    typed = line.replace("127.0.0.1:50051", live_server.grpc).replace('"k1"', '"readme"')
    program, *arguments = shlex.split(typed)
    program = str(Path(sys.executable).parent / Path(program).name)
    code, out, err = await command(program, *arguments, KFM_ENDPOINT=live_server.grpc)
    assert code == 0, err
    assert "SUCCEEDED" in out


async def test_the_python_of_the_readme_works(live_server: LiveServer) -> None:
    (source,) = [block for language, block in BLOCKS if language == "python"]
    program = f"{source}\nasyncio.run(main())"
    code, out, err = await command(sys.executable, "-c", program, KFM_ENDPOINT=live_server.grpc)
    assert code == 0, err
    assert "TurnEvent.v1" in out
    assert "buy milk" in out
