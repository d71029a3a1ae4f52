"""The contract of Sandbox: every test runs over both tiers."""

import asyncio
import gc
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from kfm_server.ports.sandbox import (
    CodeFailed,
    Confinement,
    Function,
    Grant,
    LimitReached,
    MiB,
    Outcome,
    Sandbox,
    SandboxRefused,
    Snippet,
    require,
)
from kfm_server.sandbox.interpreter import InterpreterSandbox
from kfm_server.sandbox.processes import ProcessSandbox
from kfm_server.sandbox.reading import MAX_CALL, MAX_TEXT

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K3"), pytest.mark.timeout(60)]

TOOLS = '''
"""Tools of a pack."""
calls = []


def add(a, b=1):
    calls.append(a)
    print("adding", a)
    return {"sum": a + b, "calls": len(calls)}


def fail(text):
    raise ValueError(text)
'''


@pytest.fixture(params=["interpreter", "process"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncGenerator[Sandbox]:
    made = InterpreterSandbox(size=2) if request.param == "interpreter" else ProcessSandbox(size=2)
    yield made
    await made.close()


@pytest.fixture
def pack(postgres_home: Path, tmp_path: Path) -> Path:
    """A directory that an unprivileged user can reach, too."""
    place = postgres_home / f"pack-{tmp_path.name}"
    place.mkdir()
    (place / "tools.py").write_text(TOOLS)
    return place


async def run(sandbox: Sandbox, source: str, **limits: Any) -> Outcome:
    return await sandbox.run(
        Snippet(source), {}, Grant(**{"cpu_seconds": 2, "memory_bytes": 128 * MiB} | limits)
    )


async def test_a_function_of_a_file_is_called_by_name_and_its_value_and_prints_come_back(
    sandbox: Sandbox, pack: Path
) -> None:
    add = Function(pack / "tools.py", "add")
    outcome = await sandbox.run(add, {"a": 2, "b": 40}, Grant(read_only=(pack,)))
    assert outcome == Outcome({"sum": 42, "calls": 1}, "adding 2\n")
    assert (await sandbox.run(add, {"a": 2}, Grant(read_only=(pack,)))).value["sum"] == 3


async def test_nothing_is_left_from_one_call_to_the_next(sandbox: Sandbox, pack: Path) -> None:
    for _ in range(3):
        outcome = await sandbox.run(Function(pack / "tools.py", "add"), {"a": 1}, Grant(read_only=(pack,)))
        assert outcome.value["calls"] == 1
    await run(sandbox, "import math\nmath.pi = 3\nleft = 1" if sandbox.tier == "process" else "left = 1")
    with pytest.raises(CodeFailed, match="NameError"):
        await run(sandbox, "left")
    assert (await run(sandbox, "import math\nmath.pi")).value > 3.1


async def test_a_snippet_finds_its_arguments_and_gives_its_last_expression(sandbox: Sandbox) -> None:
    outcome = await sandbox.run(
        Snippet("total = sum(numbers)\n[total, name]"), {"numbers": [1, 2], "name": "x"}
    )
    assert outcome.value == [3, "x"]
    assert (await run(sandbox, "x = 1")).value is None
    assert (await run(sandbox, "")).value is None


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "ü\n", 2**200, [], {}, {"a": [{"b": None}]}])
async def test_json_goes_in_and_comes_out_unchanged(sandbox: Sandbox, value: Any) -> None:
    assert (await sandbox.run(Snippet("x"), {"x": value})).value == value


@pytest.mark.parametrize("source", ["{1, 2}", "b'x'", "float('nan')", "float('inf')", "1j", "[object()]"])
async def test_a_value_that_is_no_json_is_the_codes_failure(sandbox: Sandbox, source: str) -> None:
    with pytest.raises(CodeFailed):
        await run(sandbox, source)


async def test_a_failure_is_told_with_its_kind_text_and_line_bounded_and_clean(
    sandbox: Sandbox, pack: Path
) -> None:
    with pytest.raises(CodeFailed) as failed:
        await run(sandbox, "x = 1\nraise KeyError('no\\x1b[31m\\x07such')")
    assert (failed.value.kind, failed.value.line) == ("KeyError", 2)
    assert "such" in failed.value.text and "\x1b" not in str(failed.value)
    with pytest.raises(CodeFailed) as failed:
        await sandbox.run(
            Function(pack / "tools.py", "fail"), {"text": "x" * 100_000}, Grant(read_only=(pack,))
        )
    assert failed.value.kind == "ValueError" and len(failed.value.text) == MAX_TEXT
    with pytest.raises(CodeFailed, match=r"SyntaxError.*line 2"):
        await run(sandbox, "x = 1\nx =")
    with pytest.raises(CodeFailed):
        await sandbox.run(Function(pack / "tools.py", "nowhere"), {}, Grant(read_only=(pack,)))


async def test_what_is_printed_has_no_control_characters(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "print('a\\x1b[2Jb\\tc')")).printed == "a[2Jb\tc\n"


@pytest.mark.parametrize(
    ("source", "limits", "reached"),
    [
        ("while True: pass", {"cpu_seconds": 1}, "cpu_seconds"),
        ("while True: pass", {"wall_seconds": 0.3}, "wall_seconds"),
        ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", {"wall_seconds": 0.3}, "wall_seconds"),
        ("x = 'a' * 300_000_000", {}, "memory_bytes"),
        ("x = []\nwhile True: x.append('a' * 1_000_000)", {}, "memory_bytes"),
        ("'x' * 2000", {"output_bytes": 1000}, "output_bytes"),
        ("print('x' * 2000)", {"output_bytes": 1000}, "output_bytes"),
        ("while True: print('flood')", {"output_bytes": 100_000}, "output_bytes"),
        ("x = []\nfor _ in range(60): x = [x, x]\nx", {"wall_seconds": 1.0}, None),
    ],
)  # fmt: skip
async def test_a_limit_that_is_reached_ends_the_call_and_is_named(
    sandbox: Sandbox, source: str, limits: dict[str, Any], reached: str | None
) -> None:
    with pytest.raises(LimitReached) as stopped:
        await run(sandbox, source, **limits)
    assert reached in (None, stopped.value.limit)
    assert f"{stopped.value.limit}=" in str(stopped.value)
    assert (await run(sandbox, "1 + 1")).value == 2


async def test_what_was_printed_before_a_limit_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(LimitReached) as stopped:
        await run(sandbox, "print('so far', flush=True)\nwhile True: pass", wall_seconds=0.3)
    assert stopped.value.printed in ("so far\n", "")
    if sandbox.tier == "process":
        assert stopped.value.printed == "so far\n"


@pytest.mark.parametrize(
    ("arguments", "grant"),
    [
        ({"x": {1}}, Grant()),
        ({"x": float("nan")}, Grant()),
        ({"not a name": 1}, Grant()),
        ({"x" * 101: 1}, Grant()),
        ({"x": "y" * MAX_CALL}, Grant()),
        ({}, Grant(memory_bytes=1)),
        ({}, Grant(processes=0)),
        ({}, Grant(wall_seconds=float("nan"))),
        ({}, Grant(cpu_seconds=10**9)),
        ({}, Grant(read_only=(Path("relative"),))),
        ({}, Grant(read_only=(Path("/"),))),
        ({}, Grant(read_only=(Path("/usr/../etc"),))),
    ],
)
async def test_what_is_no_call_is_refused_before_anything_runs(
    sandbox: Sandbox, arguments: dict[str, Any], grant: Grant
) -> None:
    with pytest.raises(SandboxRefused):
        await sandbox.run(Snippet("1"), arguments, grant)


async def test_a_file_outside_of_the_grant_is_refused(sandbox: Sandbox, pack: Path) -> None:
    for file in (Path("/etc/passwd"), pack / ".." / "tools.py", Path("tools.py")):
        with pytest.raises(SandboxRefused, match="read_only"):
            await sandbox.run(Function(file, "add"), {}, Grant(read_only=(pack,)))
    with pytest.raises(SandboxRefused, match="Python name"):
        await sandbox.run(Function(pack / "tools.py", "add; import os"), {}, Grant(read_only=(pack,)))


async def test_calls_run_at_once_and_more_than_there_are_places_wait(sandbox: Sandbox) -> None:
    calls = [sandbox.run(Snippet("n * n"), {"n": n}) for n in range(8)]
    assert [outcome.value for outcome in await asyncio.gather(*calls)] == [n * n for n in range(8)]


async def test_a_cancelled_call_is_stopped_and_the_next_one_works(sandbox: Sandbox) -> None:
    for _ in range(2):
        endless = asyncio.ensure_future(run(sandbox, "while True: pass", cpu_seconds=60, wall_seconds=60))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await endless
        assert endless.cancelled()
    assert (await run(sandbox, "1 + 1")).value == 2


async def test_closing_ends_what_runs_and_refuses_what_comes(sandbox: Sandbox) -> None:
    endless = asyncio.ensure_future(run(sandbox, "while True: pass", cpu_seconds=60, wall_seconds=60))
    await run(sandbox, "1")  # by now the other is on its way, too
    async with asyncio.timeout(30):
        await sandbox.close()
        with pytest.raises(SandboxRefused):
            await endless
    with pytest.raises(SandboxRefused, match="closed"):
        await run(sandbox, "1")
    await sandbox.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_many_calls_leave_no_open_files_behind(sandbox: Sandbox) -> None:
    await run(sandbox, "1")
    before = open_files()
    for _ in range(30):
        await run(sandbox, "1")
    gc.collect()
    assert open_files() <= before + 2


def test_what_needs_a_tier_is_refused_where_it_was_not_found_able() -> None:
    found = (Confinement("interpreter", True, ""), Confinement("process", False, "no user namespaces"))
    require("interpreter", found)
    with pytest.raises(SandboxRefused, match="no user namespaces"):
        require("process", found)
    with pytest.raises(SandboxRefused):
        require("process", found[:1])
