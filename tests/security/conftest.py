"""The sandbox as an attacker meets it: from inside, under a server of root and under one of a plain user."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import psutil
import pytest

DRIVER = Path(__file__).parent / "driver.py"
CANARY = "canary-4b1d0c5e"
"""Stands wherever code in the sandbox must not look; in no answer of it may it be seen."""
NOBODY = 65534
SMALL = {"cpu_seconds": 5, "wall_seconds": 60, "memory_bytes": 128 << 20, "scratch_bytes": 1 << 20}
PRELUDE = '''
import ctypes, errno, os, resource, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*arguments):
    result = libc.syscall(*map(ctypes.c_long, arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result
'''  # fmt: skip


class Prison:
    """A process with a sandbox in it, and what an attacker in the sandbox knows of the world outside."""

    def __init__(self, process: Process, pack: Path) -> None:
        self.process = process
        self.pack = pack

    async def attempt(
        self, source: str, arguments: dict[str, Any] | None = None, **grant: Any
    ) -> dict[str, Any]:
        """How one call ends. Nothing that it tells may hold the canary."""
        asked = {
            "source": PRELUDE + source,
            "arguments": {"pack": str(self.pack)} | (arguments or {}),
            "grant": SMALL | {"read_only": [str(self.pack)]} | grant,
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        async with asyncio.timeout(120):
            answer = await self.process.stdout.readline()
        assert CANARY.encode() not in answer
        return json.loads(answer)

    async def value(self, source: str, arguments: dict[str, Any] | None = None, **grant: Any) -> Any:
        """What code gives that does not fail."""
        end = await self.attempt(source, arguments, **grant)
        assert "value" in end, end
        return end["value"]

    def processes(self) -> list[psutil.Process]:
        """Those of its sandbox: the directory of the pack stands in their command line."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if str(self.pack) in (process.info["cmdline"] or ()) and process.pid != self.process.pid:
                found.append(process)
        return found


def _python_of_anybody() -> str:
    """A Python of this version that a plain user may run, with all that this one imports; empty if there is none."""
    version = f"python3.{sys.version_info.minor}"
    for python in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin")):
        try:
            subprocess.run(
                [python or "", "-c", "import kfm_server.sandbox.processes"],
                env=_environment(), cwd="/", user=NOBODY, group=NOBODY, extra_groups=(), capture_output=True, check=True,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            continue
        return python or ""
    return ""


def _environment() -> dict[str, str]:
    own = [p for p in sys.path if p and not p.startswith(sys.base_prefix) and Path(p).is_dir()]
    return {"PYTHONPATH": os.pathsep.join(own), "KFM_TOKEN": CANARY, "PYTHONDONTWRITEBYTECODE": "1"}


async def started(python: str, pack: Path, *denied: str, **options: Any) -> Prison:
    """A prison whose process may not use the `denied` system calls."""
    process = await asyncio.create_subprocess_exec(
        python,
        str(DRIVER),
        *denied,
        stdin=PIPE,
        stdout=PIPE,
        cwd="/",
        env=_environment(),
        limit=2**22,
        **options,
    )
    return Prison(process, pack)


@pytest.fixture
def pack(postgres_home: Path, tmp_path: Path) -> Path:
    """Files that code may read, with doors in them that lead nowhere; outside of it lies a secret."""
    place = postgres_home / f"prison-{tmp_path.name}"
    place.mkdir()
    (place / "helper.py").write_text("ANSWER = 42\n")
    secret = secret_beside(place)
    secret.write_text(CANARY)
    (place / "link").symlink_to(secret)
    (place / "passwd").symlink_to("/etc/passwd")
    return place


def secret_beside(pack: Path) -> Path:
    """A file that every user of the host can read, and no code in the sandbox."""
    return pack.parent / f"{pack.name}.secret"


@pytest.fixture(scope="session")
def python_of_anybody() -> str:
    return _python_of_anybody() if os.geteuid() == 0 else ""


@pytest.fixture(params=["this user", "plain user"])
async def prison(
    request: pytest.FixtureRequest, pack: Path, python_of_anybody: str
) -> AsyncGenerator[Prison]:
    """Under a server of this user (root, often), and under one of a plain user."""
    python, options = sys.executable, {}
    if request.param == "plain user":
        if os.geteuid() != 0:
            pytest.skip("this user is a plain one")
        if not python_of_anybody:
            pytest.skip("there is no Python that a plain user may run")
        python, options = python_of_anybody, {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
    secret = os.open(secret_beside(pack), os.O_RDONLY)
    os.set_inheritable(secret, True)  # a server that forgot to close something
    made = await started(python, pack, close_fds=False, **options)
    os.close(secret)
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    async with asyncio.timeout(60):
        await made.process.wait()
    assert made.processes() == []
