"""What this host can confine: each tier is started and attacked a little; one that does not hold is not able."""

import asyncio
from typing import Final

from kfm_server.ports.sandbox import Confinement, Grant, MiB, Sandbox, SandboxError, Snippet
from kfm_server.sandbox.interpreter import InterpreterSandbox
from kfm_server.sandbox.processes import ProcessSandbox

PROBE_SECONDS: Final = 30.0
"""Longest look at a tier."""
_GRANT = Grant(cpu_seconds=5, wall_seconds=10, memory_bytes=128 * MiB, output_bytes=4096)
_INTERPRETER = """
from pathlib import Path
done = []
try:
    Path("/etc/hostname").read_text()
    done.append("read a file of the host")
except OSError:
    pass
done
"""
_PROCESS = """
import os, socket

def attempt(name, work):
    try:
        work()
    except (OSError, MemoryError):
        return
    done.append(name)

done = []
attempt("read a file of the host", lambda: open("/etc/passwd"))
attempt("see the processes of the host", lambda: os.listdir("/proc/self"))
attempt("write outside of its directory", lambda: open("/tmp/x", "w"))
attempt("use the network", lambda: socket.socket())
attempt("start a process", os.fork)
attempt("start a program", lambda: os.execv("/bin/true", ["true"]))
attempt("become root", lambda: os.setuid(0))
attempt("take more memory", lambda: bytearray(1 << 30))
if os.getppid() != 1:
    done.append("see who started it")
done
"""


async def probe() -> tuple[Confinement, ...]:
    """Whether this host can confine code, tier by tier; takes some tenths of a second."""
    tiers: tuple[tuple[Sandbox, str], ...] = (
        (InterpreterSandbox(size=1), _INTERPRETER),
        (ProcessSandbox(size=1), _PROCESS),
    )
    return tuple(await asyncio.gather(*(_look(sandbox, attack) for sandbox, attack in tiers)))


async def _look(sandbox: Sandbox, attack: str) -> Confinement:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            done = (await sandbox.run(Snippet(attack), {}, _GRANT)).value
    except SandboxError as error:
        return Confinement(sandbox.tier, False, str(error))
    except TimeoutError:
        return Confinement(sandbox.tier, False, f"It gave no answer within {PROBE_SECONDS:g} seconds.")
    finally:
        await sandbox.close()
    if done != []:
        return Confinement(sandbox.tier, False, f"Code in it could {', '.join(map(str, done))}.")
    return Confinement(sandbox.tier, True, "Every attempt to get out was refused.")
