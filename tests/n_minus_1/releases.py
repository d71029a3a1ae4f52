"""Today's release and the one before it, each with an interpreter of its own."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.support.live import LiveServer

ROOT = Path(__file__).parents[2]
BASELINE = Path(__file__).with_name("BASELINE")
BUILD_SECONDS = 600.0
TOOLS = "tests.support.ledger:TOOLS"


class CannotBuild(Exception):
    """The release before cannot be had; the text says why, and what would help."""


@dataclass(frozen=True)
class Release:
    """Where its tree lies, and the interpreter that has its packages."""

    name: str
    directory: Path
    python: str
    path: str = ""
    """What else its interpreter finds: PYTHONPATH."""

    def environment(self, **more: str) -> dict[str, str]:
        """For a process of this release: nothing of another one's comes in."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
        return kept | {"PYTHONPATH": self.path} | more

    def server(
        self, home: Path, database_url: str, environment: Mapping[str, str], tools: str = TOOLS
    ) -> LiveServer:
        """A server of it that has not started."""
        return LiveServer(
            home,
            tools,
            database_url,
            {**environment, "PYTHONPATH": self.path},
            python=self.python,
            directory=self.directory,
        )

    def offers(self, *command: str) -> bool:
        """Whether its command line knows the command."""
        asked = [self.python, "-m", "kfm_server.doors.cli.main", *command, "--help"]
        done = subprocess.run(asked, cwd=self.directory, env=self.environment(), capture_output=True)
        return done.returncode == 0


TODAY = Release("today's", ROOT, sys.executable, os.environ.get("PYTHONPATH", ""))


def before() -> Release:
    """The release of BASELINE, built below .cache/ when it is not there yet. CannotBuild."""
    commit = BASELINE.read_text().split("\n")[0].strip()
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise CannotBuild(f"{BASELINE}: the first line must be the 40 hex digits of a commit, not {commit!r}")
    place = ROOT / ".cache" / "n-1" / commit
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as made:
            tree = Path(made) / "tree"
            _unpack(commit, tree)
            tree.rename(place)
    _install(place)
    return Release("the one before", place, str(place / ".venv/bin/python"))


def _unpack(commit: str, tree: Path) -> None:
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if done.returncode:
        said = done.stderr.decode().strip()
        raise CannotBuild(
            f"commit {commit} of {BASELINE.name} is not in this clone ({said}): fetch its history, as by"
            " git fetch --unshallow"
        )
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(tree, filter="data")


def _install(tree: Path) -> None:
    """What its own lock file says; nothing is done when it is there."""
    uv = next((p for p in (shutil.which("uv", path=str(ROOT / ".venv/bin")), shutil.which("uv")) if p), None)
    if uv is None:
        raise CannotBuild("uv is neither in .venv/bin nor on PATH: make .venv/.ready")
    ours = {
        k: v for k, v in os.environ.items() if not k.startswith(("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA"))
    }
    ours.pop("VIRTUAL_ENV", None)
    ours.pop("PYTHONPATH", None)
    command = [uv, "sync", "-q", "--frozen", "--no-dev", "--all-packages", "--python", sys.executable]
    done = subprocess.run(command, cwd=tree, env=ours, capture_output=True, timeout=BUILD_SECONDS)
    if done.returncode:
        raise CannotBuild(f"its packages cannot be installed: {done.stderr.decode().strip()}")
