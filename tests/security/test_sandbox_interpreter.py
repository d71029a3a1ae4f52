"""Escapes from the tier `interpreter`, which needs nothing of its host: nothing of it is there, and all of it is bounded."""

import subprocess
import sys
from collections.abc import AsyncGenerator

import psutil
import pytest
from kfm_server.ports.sandbox import CodeFailed, Grant, LimitReached, MiB, Snippet
from kfm_server.sandbox.interpreter import InterpreterSandbox

from tests.security.conftest import CANARY

pytestmark = [pytest.mark.requirement("K3", "ST13"), pytest.mark.timeout(300)]
SMALL = Grant(cpu_seconds=10, wall_seconds=2.0, memory_bytes=64 * MiB, output_bytes=65_536)

OUTSIDE = {
    "a file": "open('/etc/passwd').read()",
    "a file by its path": "from pathlib import Path\nPath('/etc/passwd').read_text()",
    "whether a file is there": "from pathlib import Path\nPath('/etc/passwd').exists()",
    "a directory": "from pathlib import Path\nlist(Path('/').iterdir())",
    "a directory by its name": "import os\nos.listdir('/')",
    "a file that it writes": "open('/tmp/evil', 'w').write('x')",
    "the environment": "import os\nos.environ['KFM_TOKEN']",
    "a variable": "import os\nos.getenv('KFM_TOKEN')",
    "a program": "import os\nos.system('id')",
    "a process": "import subprocess",
    "a socket": "import socket",
    "memory": "import ctypes",
    "the interpreter": "import sys\nsys._getframe()",
    "the classes of everything": "().__class__.__base__.__subclasses__()",
    "the names around a function": "(lambda: 0).__globals__",
    "a loader": "__import__('os').system('id')",
    "nested sources": "(" * 9000 + ")" * 9000,
    "a stack without end": "def deeper(n): return deeper(n + 1) + 1\ndeeper(0)",
}
TOO_MUCH = {
    "a power": ("7 ** (7 ** 9)", "wall_seconds"),
    "a digest": ("import hashlib\nhashlib.pbkdf2_hmac('sha256', b'a', b'b', 10 ** 9)", "wall_seconds"),
    "a loop": ("while True: pass", "wall_seconds"),
    "a list": ("[0] * (10 ** 9)", "memory_bytes"),
    "a number": ("1 << (10 ** 10)", "memory_bytes"),
    "a width": ("'{:>999999999}'.format('x')", "memory_bytes"),
    "products": ("import itertools\nlist(itertools.product(range(100), repeat=6))", "memory_bytes"),
    "prints": ("while True: print('x' * 1000)", "output_bytes"),
    "a value": ("'x' * 100_000", "output_bytes"),
}


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[InterpreterSandbox]:
    monkeypatch.setenv("KFM_TOKEN", CANARY)
    async with InterpreterSandbox.open(size=1) as sandbox:
        yield sandbox


@pytest.mark.parametrize("source", OUTSIDE.values(), ids=OUTSIDE.keys())
async def test_there_is_nothing_outside(sandbox: InterpreterSandbox, source: str) -> None:
    with pytest.raises(CodeFailed) as failed:
        await sandbox.run(Snippet(source), {}, SMALL)
    assert CANARY not in str(failed.value)
    assert (await sandbox.run(Snippet("1 + 1"), {}, SMALL)).value == 2


@pytest.mark.parametrize(("source", "limit"), TOO_MUCH.values(), ids=TOO_MUCH.keys())
async def test_too_much_of_anything_ends_at_its_limit(
    sandbox: InterpreterSandbox, source: str, limit: str
) -> None:
    with pytest.raises(LimitReached) as reached:
        await sandbox.run(Snippet(source), {}, SMALL)
    assert reached.value.limit == limit
    assert (await sandbox.run(Snippet("1 + 1"), {}, SMALL)).value == 2


SERVER = """
import asyncio, sys
from kfm_server.ports.sandbox import Grant, Snippet
from kfm_server.sandbox.interpreter import InterpreterSandbox

async def main():
    sandbox = InterpreterSandbox(size=1)
    await sandbox.run(Snippet("1"), {})
    print("ready", flush=True)
    await sandbox.run(Snippet("while True: pass"), {}, Grant(cpu_seconds=3, wall_seconds=3))

asyncio.run(main())
"""


def test_killing_the_server_leaves_nothing_beyond_the_time_of_the_call() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    workers = psutil.Process(server.pid).children(recursive=True)
    server.kill()
    server.wait(60)
    server.stdout.close()
    assert workers
    assert psutil.wait_procs(workers, 60)[1] == []
