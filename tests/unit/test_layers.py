"""Imports point one way: read from the source itself, so that no import trick at run time hides one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "kfm_server"
SDK = ROOT / "sdk" / "python" / "xenocomm"
CONTRACT = ROOT / "gen" / "python"

VOCABULARY = frozenset(
    {
        "breaker",
        "canonical",
        "clock",
        "context",
        "failpoints",
        "ids",
        "importing",
        "metrics",
        "models",
        "recipe",
        "secret",
        "schema_work",
        "tool_catalogue",
        "trace_ids",
    }
)
"""Modules that every room may use; of ours they know only each other."""
ADAPTERS = frozenset({"journal", "bus", "cache", "memory", "personalities", "providers", "sandbox", "tools"})
MAY_IMPORT: dict[str, frozenset[str]] = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    "__main__": frozenset(),
    **dict.fromkeys(("endpoints", "logs", "tasks"), VOCABULARY),
    "starting": VOCABULARY | {"app", "endpoints", "logs", "settings"},
    "telemetry": VOCABULARY | {"ports"},
    "settings": VOCABULARY | {"ports"},
    "ports": VOCABULARY,
    "turns": VOCABULARY,
    "steps": VOCABULARY | {"ports", "turns"},
    "runtime": VOCABULARY | {"ports", "turns"},
    "worker": VOCABULARY | {"ports", "steps", "xenocomm"},
    **dict.fromkeys(ADAPTERS, VOCABULARY | {"ports"}),
    "doors": VOCABULARY | {"ports", "turns", "runtime", "xenocomm", "kfm_mcp"},
}
"""What each room may import beside itself, the generated contract and other people's libraries."""
EXCEPTIONS = {
    ("doors/cli/packs.py", "personalities"): "packs are made, checked and installed without a server",
    ("doors/cli/pack_cases.py", "personalities"): "and so are their cases run",
    ("doors/cli/pack_cases.py", "sandbox"): "in the sandbox that a server would use",
    ("doors/cli/doctor.py", "sandbox"): "what this machine can confine is found by trying",
    ("doors/cli/packs.py", "sandbox"): "and told to those who install packs",
    (
        "doors/cli/main.py",
        "starting",
    ): "`kfm serve` starts a server; nothing else of the command line knows one",
    ("doors/cli/main.py", "endpoints"): "and tells where it listens",
    ("doors/cli/main.py", "settings"): "flags are laid over the environment by the settings' only reader",
    ("doors/cli/model_server.py", "providers"): "`kfm model-server` is the development server's own process",
    ("worker/relay.py", "runtime"): "a process offers the places of its hub to the others, as a worker",
    ("worker/program.py", "tools"): "a worker composes itself: it is a process without a server",
    ("worker/bus_program.py", "bus"): "and one on the broker names the broker",
    ("worker/ghosts.py", "bus"): "as does who looks after a pool's group on it",
    ("worker/bus_program.py", "tools"): "and its tools",
    ("doors/cli/worker.py", "settings"): "where the broker is, is read by the settings' only reader",
    ("doors/cli/worker.py", "worker"): "`kfm worker` is that process",
    ("doors/cli/worker.py", "logs"): "whose log is like the server's",
    ("doors/cli/worker.py", "tools"): "and which tells what is wrong with its tools",
    ("doors/cli/mcp.py", "logs"): "the bridge is a process of its own, whose log is like the server's",
    ("__main__.py", "doors"): "the entry point is the command line",
}
PURE_TURNS_AVOID = frozenset({"asyncio", "time", "random", "os", "secrets", "socket", "datetime", "pathlib"})


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; relative imports are refused."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole path of what is imported"
            assert node.module is not None
            if node.module == "kfm_server":
                yield from (f"kfm_server.{alias.name}" for alias in node.names)
            else:
                yield node.module


def room_of(module: str) -> str:
    """`journal` of `kfm_server.journal.writer`; for what is not the server's, the first part of the name."""
    parts = module.split(".")
    return parts[1] if parts[0] == "kfm_server" and len(parts) > 1 else parts[0]


def breaks_of(relative: str, room: str, modules: Iterator[str]) -> list[str]:
    """What a file of a room imports though it may not, as sentences."""
    found: list[str] = []
    for module in modules:
        if module.split(".")[0] not in ("kfm_server", "xenocomm", "kfm_mcp", "codegen", "tests", "bench"):
            continue
        other = room_of(module)
        if other == room or other in MAY_IMPORT[room] or (relative, other) in EXCEPTIONS:
            continue
        found.append(f"{relative} may not import {module}: {room} knows only {sorted(MAY_IMPORT[room])}")
    return found


SERVER_FILES = [p.relative_to(SERVER).as_posix() for p in sorted(SERVER.rglob("*.py"))]


@pytest.mark.parametrize(
    "relative",
    [f for f in SERVER_FILES if f not in ("app.py", "__init__.py") and not f.startswith("composition/")],
)
def test_a_file_imports_only_what_its_room_may(relative: str) -> None:
    room = relative.split("/")[0].removesuffix(".py")
    assert room in MAY_IMPORT, f"{relative} stands in a room without a rule: give it one in MAY_IMPORT"
    assert not breaks_of(relative, room, imported(SERVER / relative))


def test_only_the_composition_root_names_concrete_adapters() -> None:
    for relative in SERVER_FILES:
        room = relative.split("/")[0]
        if relative == "app.py" or room == "composition":
            continue
        named = {room_of(m) for m in imported(SERVER / relative)} & ADAPTERS
        named -= {other for file, other in EXCEPTIONS if file == relative}
        assert named <= {room}, f"{relative} names {named - {room}}: only app.py and composition/ may"


@pytest.mark.parametrize("relative", [f for f in SERVER_FILES if f.startswith("turns/")])
def test_turns_are_pure(relative: str) -> None:
    impure = {m.split(".")[0] for m in imported(SERVER / relative)} & PURE_TURNS_AVOID
    assert not impure, f"{relative} imports {impure}: a recorded turn could not be replayed"


def test_the_sdk_knows_nothing_of_the_server_or_its_generated_code() -> None:
    for path in SDK.rglob("*.py"):
        roots = {m.split(".")[0] for m in imported(path)}
        # The test kit starts a server in the same process, when it is asked to.
        apart = {"kfm_server"} if path == SDK / "testing" / "server.py" else set[str]()
        # The SDK parses with a pool of its own: importing kfm.* would register the same protos twice.
        assert not (roots - apart) & {"kfm_server", "kfm", "kfm_mcp", "codegen", "tests"}, path


def test_the_contract_imports_nothing_of_ours() -> None:
    for path in CONTRACT.rglob("*.py"):
        if ".venv" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        roots = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        roots |= {
            n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module
        }
        assert not roots & {"kfm_server", "xenocomm", "kfm_mcp", "codegen", "tests"}, path


def test_every_recorded_exception_is_still_needed() -> None:
    for relative, other in EXCEPTIONS:
        assert other in {room_of(m) for m in imported(SERVER / relative)}, (
            f"{relative} no longer needs {other}"
        )


def test_a_forbidden_import_is_seen() -> None:
    assert breaks_of("journal/x.py", "journal", iter(["kfm_server.bus.reader"]))
    assert breaks_of("turns/x.py", "turns", iter(["kfm_server.ports.steps"]))
    assert breaks_of("doors/x.py", "doors", iter(["kfm_server.journal.postgres"]))
    assert not breaks_of("runtime/x.py", "runtime", iter(["kfm_server.ports.steps", "kfm.turn.v1.turn_pb2"]))
