"""A plugin of pytest: `-p tests.support.fault_tests` runs only tests that are marked with an FT, and keeps what came of them.

Each result is appended to tests/faults/matrix/tests.jsonl, of which docs/faults.md is made; FT=FT8,FT9 takes only these.
With KFM_TEST_FULL, tests that have a full length run at it, and their results stand apart.
"""

import json
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support import iggy

RESULTS = Path(__file__).parents[1] / "faults" / "matrix" / "tests.jsonl"
_FT = re.compile(r"FT\d+")


def marks(item: pytest.Item) -> list[str]:
    """The FTs that a test shows, of those that were asked for."""
    asked = set(filter(None, os.environ.get("FT", "").split(",")))
    told = {str(name) for mark in item.iter_markers("requirement") for name in mark.args}
    return sorted(name for name in told if _FT.fullmatch(name) and (not asked or name in asked))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only those."""
    mine = [item for item in items if marks(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in mine])
    items[:] = mine


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any]:
    """Keep it."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.when != "call" and report.passed:
        return
    row = {
        "fts": marks(item),
        "test": item.nodeid,
        "outcome": report.outcome,
        "seconds": round(report.duration, 1),
        "measured": dict(report.user_properties),
        "iggy": iggy.summary().removeprefix("Iggy was ")
        if "iggy" in getattr(item, "fixturenames", ())
        else "",
        "full": bool(os.environ.get("KFM_TEST_FULL")),
        "why": str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "",
    }
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
