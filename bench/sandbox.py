"""What the sandbox costs: calls of both tiers beside a bare function behind a pipe, interleaved in one run.

`python -m bench.sandbox [--calls 200]` prints a line of JSON for each, then the goal: a warm call under 5 ms.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path

from kfm_server.ports.sandbox import Function, Grant, Sandbox
from kfm_server.sandbox.interpreter import InterpreterSandbox
from kfm_server.sandbox.processes import ProcessSandbox

GOAL_MS = 5.0
_TOOL = "def add(a, b):\n    return {'sum': a + b}\n"
_BARE = f"""
import json, sys
{_TOOL}
for line in sys.stdin:
    print(json.dumps(add(**json.loads(line))), flush=True)
"""
Call = Callable[[], Awaitable[None]]


def _of(sandbox: Sandbox, function: Function, grant: Grant) -> Call:
    async def call() -> None:
        outcome = await sandbox.run(function, {"a": 1, "b": 2}, grant)
        assert outcome.value == {"sum": 3}

    return call


async def _timed(call: Call) -> float:
    start = time.perf_counter()
    await call()
    return (time.perf_counter() - start) * 1000


def _told(name: str, cold: float, times: list[float]) -> dict[str, object]:
    times.sort()
    median, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return {"name": name, "cold_ms": round(cold, 2), "p50_ms": round(median, 3), "p99_ms": round(p99, 3)}


async def main(calls: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder)
        pack.chmod(0o755)  # noqa: ASYNC240
        (pack / "tools.py").write_text(_TOOL)
        function, grant = Function(pack / "tools.py", "add"), Grant(read_only=(pack,))
        bare = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", _BARE, stdin=PIPE, stdout=PIPE
        )

        async def over_a_pipe() -> None:
            assert bare.stdin is not None and bare.stdout is not None
            bare.stdin.write(b'{"a": 1, "b": 2}\n')
            assert json.loads(await bare.stdout.readline()) == {"sum": 3}

        async with InterpreterSandbox.open(size=1) as interpreter, ProcessSandbox.open(size=1) as process:
            works = {
                "bare": over_a_pipe,
                "interpreter": _of(interpreter, function, grant),
                "process": _of(process, function, grant),
            }
            cold = {name: await _timed(call) for name, call in works.items()}
            times: dict[str, list[float]] = {name: [] for name in works}
            for _ in range(calls):
                for name, call in works.items():
                    times[name].append(await _timed(call))
        assert bare.stdin is not None
        bare.stdin.close()
        await bare.wait()
    lines = [_told(name, cold[name], times[name]) for name in works]
    medians = {name: sorted(times[name])[calls // 2] for name in works}
    for line in lines:
        print(json.dumps(line))
    over = {name: round(medians[name] - medians["bare"], 3) for name in ("interpreter", "process")}
    ratio = {name: round(medians[name] / medians["bare"], 1) for name in over}
    print(
        json.dumps(
            {"overhead_ms": over, "ratio": ratio, "goal_ms": GOAL_MS, "met": max(over.values()) < GOAL_MS}
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    asyncio.run(main(parser.parse_args().calls))
