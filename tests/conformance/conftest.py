"""One suite for each port: every test runs over memory and over Postgres."""

import pytest


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str:
    """Where the store is; empty is in memory."""
    return "" if request.param == "memory" else request.getfixturevalue("database")
