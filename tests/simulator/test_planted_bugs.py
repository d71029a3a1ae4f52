"""The simulator is worth what it finds: planted bugs, each found within 200 seeds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.planted import BUGS, Bug, plant

ROOT = Path(__file__).parents[2]


def _run(package_root: Path, seeds: int) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{package_root}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", "tests.simulator.run", "--seeds", str(seeds)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.requirement("R4", "E5")
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_within_200_seeds(bug: Bug, tmp_path: Path) -> None:
    copy = plant(bug, tmp_path)
    run = _run(tmp_path, 200)
    assert f"engine {copy}\n" in run.stdout, run.stdout + run.stderr
    assert run.returncode == 1, f"200 seeds did not find {bug.name}"
    assert "FAILED" in run.stdout, run.stdout + run.stderr
    assert "replay: python -m tests.simulator.run --from" in run.stdout


def test_an_unchanged_copy_passes(tmp_path: Path) -> None:
    copy = plant(Bug("none", ()), tmp_path)
    run = _run(tmp_path, 5)
    assert f"engine {copy}\n" in run.stdout
    assert run.returncode == 0, run.stdout + run.stderr
