"""The numbers that drills measured are printed after the run, one line each."""

import os
from collections.abc import Callable
from typing import Any

import pytest

Report = Callable[..., None]

# Drills start databases from a process that has gRPC's threads: its fork handlers crash such a child now and then.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """`report(took_s=1.2, ...)`: numbers to print at the end of the run, whether the test passes or not."""

    def add(**numbers: object) -> None:
        for name, value in numbers.items():
            record_property(name, value)

    return add


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print them."""
    outcomes = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    measured = [r for r in outcomes if r.when == "call" and r.user_properties]
    if measured:
        terminalreporter.section("measured")
    for outcome in measured:
        numbers = " ".join(f"{name}={value}" for name, value in outcome.user_properties)
        terminalreporter.write_line(f"{outcome.nodeid.rpartition('::')[2]}: {numbers}")
