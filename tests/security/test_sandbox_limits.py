"""Escapes by taking too much: each ends at a limit, and the next call finds nothing of it."""

import asyncio
import os

import psutil
import pytest

from tests.security.conftest import Prison

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K3", "ST13"), pytest.mark.timeout(300)]

BOMB = """
started = 0
for _ in range(200):
    try:
        if os.fork() == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(600)
            except OSError:
                pass
            time.sleep(600)
    except OSError:
        break
    started += 1
started"""


@pytest.mark.parametrize(
    "source",
    [
        "os.fork()",
        "import threading\nthreading.Thread(target=print).start()",
        "import _thread\n_thread.start_new_thread(print, ())",
        "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=print).start()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "syscall(57) if os.uname().machine == 'x86_64' else syscall(220, 17, 0, 0, 0, 0)",
        "syscall(58) if os.uname().machine == 'x86_64' else syscall(220, 17, 0, 0, 0, 0)",
    ],
)
async def test_a_grant_of_one_process_starts_none(prison: Prison, source: str) -> None:
    assert (await prison.attempt(source)).get("limit") == "processes"


async def test_a_fork_bomb_is_bounded_and_none_of_it_outlives_the_call(prison: Prison) -> None:
    await prison.value("1", processes=6)
    before = {process.pid for process in prison.processes()}
    assert await prison.value(BOMB, processes=6) <= 5
    assert {process.pid for process in prison.processes()} == before
    threads = (
        "import threading\nfor n in range(100): threading.Thread(target=time.sleep, args=(600,)).start()"
    )
    assert (await prison.attempt(threads, processes=6))["limit"] == "processes"
    assert {process.pid for process in prison.processes()} == before


async def test_a_daemon_is_gone_when_its_call_is(prison: Prison) -> None:
    source = """
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        while True: time.sleep(600)
    os._exit(0)
os.wait()
'left it behind'"""
    assert await prison.value(source, processes=4) == "left it behind"
    assert len(prison.processes()) == 2  # what waits for calls, and what waits for that


@pytest.mark.parametrize(
    "source",
    [
        "bytearray(1 << 30)",
        "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
        "import mmap\nkept = [mmap.mmap(-1, 1 << 24) for _ in range(100)]",
        "'x' * (1 << 30)",
        "sys.stdin = None\nkept = []\nwhile True:\n    try: kept.append(bytearray(1 << 22))\n    except MemoryError: raise",
    ],
)
async def test_memory_is_bounded(prison: Prison, source: str) -> None:
    end = await prison.attempt(source)
    assert end.get("limit") == "memory_bytes", end


async def test_memory_of_many_processes_is_bounded_for_each(prison: Prison) -> None:
    source = "os.fork()\nos.fork()\nbytearray(1 << 30)"
    assert (await prison.attempt(source, processes=4)).get("limit") in ("memory_bytes", "processes")


@pytest.mark.parametrize(
    "source",
    [
        "while True: print('x' * 1000)",
        "while True: print('x' * 1000, file=sys.stderr)",
        "while True: os.write(1, b'x' * 65536)",
        "'x' * 1_000_000",
        "for number in range(3, 64):\n    try:\n        while True: os.write(number, b'x' * 65536)\n    except OSError: pass",
    ],
)
async def test_a_flood_of_output_is_stopped(prison: Prison, source: str) -> None:
    assert (await prison.attempt(source, output_bytes=100_000)).get("limit") == "output_bytes"


@pytest.mark.parametrize(
    "source",
    [
        # timers, and signals to itself that it does not take
        "timer = ctypes.c_int()\nwhile True: taken += syscall(timer_create, 0, 0, ctypes.addressof(timer)) + 1",
        """
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
told = (ctypes.c_char * 128)()
while True:
    ctypes.memset(told, 0, 128)
    ctypes.c_int.from_buffer(told, 8).value = -1
    taken += syscall(sigqueue, os.getpid(), 40, ctypes.addressof(told)) + 1""",
        "kept = []\nwhile True:\n    kept.append(os.pipe())\n    taken += 2",
    ],
)
async def test_what_the_kernel_keeps_for_it_is_bounded(prison: Prison, source: str) -> None:
    numbers = (
        "timer_create, sigqueue = (222, 129) if os.uname().machine == 'x86_64' else (107, 138)\ntaken = 0"
    )
    indented = "\n".join(f"    {line}" for line in source.splitlines())
    assert await prison.value(f"{numbers}\ntry:\n{indented}\nexcept OSError: pass\ntaken") <= 64
    assert await prison.value("1 + 1") == 2


async def test_buffers_of_the_kernel_cannot_be_made_larger(prison: Prison) -> None:
    end = await prison.attempt(
        "socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)"
    )
    assert end["failed"] == "PermissionError"


async def test_a_forged_end_fools_only_its_own_call(prison: Prison) -> None:
    source = """
for number in range(3, 64):
    try: os.write(number, b'V{"forged": true}')
    except OSError: pass
os._exit(0)"""
    assert await prison.value(source) == {"forged": True}
    for junk in (
        b"V[" * 1000,
        b"V{",
        b"Lnothing",
        b"E[]",
        b'E{"kind": 1, "text": [], "line": -1}',
        b"X",
        b"VNaN",
        b"V[1e999]",
        b'V"\\ud800"',
        b'V{"\\ud800": 1}',
        b"V" + b"9" * 5000,
        b"\xff",
    ):
        end = await prison.attempt(source.replace("b'V{\"forged\": true}'", repr(junk)))
        assert "failed" in end, (junk, end)
    assert await prison.value("1 + 1") == 2


@pytest.mark.parametrize(
    ("source", "limit"),
    [
        ("while True: pass", "cpu_seconds"),
        ("signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "cpu_seconds"),
        ("import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "cpu_seconds"),
        ("7 ** (7 ** 9)", "cpu_seconds"),
    ],
)
async def test_time_on_the_processor_is_bounded(prison: Prison, source: str, limit: str) -> None:
    assert (await prison.attempt(source, cpu_seconds=1))["limit"] == limit


@pytest.mark.parametrize(
    "source",
    [
        "time.sleep(600)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\ntime.sleep(600)",
        "os.closerange(0, 64)\ntime.sleep(600)",
        "os.read(os.pipe()[0], 1)",
        "import fcntl\nfile = open('x', 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)\nsignal.pause()",
        "import atexit\natexit.register(time.sleep, 600)\ntime.sleep(600)",
    ],
)
async def test_what_hangs_is_ended(prison: Prison, source: str) -> None:
    assert (await prison.attempt(source, wall_seconds=0.5))["limit"] == "wall_seconds"
    assert await prison.value("1 + 1") == 2


@pytest.mark.parametrize(
    "source",
    [
        "ctypes.string_at(1)",
        "os._exit(7)",
        "os.abort()",
        "sys.exit(3)",
        "raise SystemExit",
        "raise KeyboardInterrupt",
    ],
)
async def test_a_crash_is_the_codes_failure_and_the_next_call_works(prison: Prison, source: str) -> None:
    assert "failed" in await prison.attempt(source)
    assert await prison.value("1 + 1") == 2


async def test_a_stack_without_end_is_ended(prison: Prison) -> None:
    source = "sys.setrecursionlimit(10**9)\ndef deeper(n): return deeper(n + 1) + 1\ndeeper(0)"
    end = await prison.attempt(source, cpu_seconds=2)
    assert "failed" in end or end.get("limit") in ("memory_bytes", "cpu_seconds"), end


@pytest.mark.parametrize("source", ["pass", BOMB])
async def test_killing_the_server_leaves_nothing_of_its_sandbox(prison: Prison, source: str) -> None:
    pipe = prison.pack / "pipe"
    os.mkfifo(pipe, 0o644)
    call = prison.attempt(
        f"{source}\nopen(pack + '/pipe', 'rb')\nwhile True: pass",
        processes=6,
        cpu_seconds=60,
        wall_seconds=60,
    )
    endless = asyncio.ensure_future(call)
    async with asyncio.timeout(60):
        (await asyncio.to_thread(pipe.open, "wb")).close()  # opens once the other end does
    of_sandbox = prison.processes()
    assert len(of_sandbox) >= 3
    prison.process.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, of_sandbox, 60)
    assert alive == []
    assert prison.processes() == []
    with pytest.raises(ValueError):
        await endless
