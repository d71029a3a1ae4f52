"""What callers hand in is checked before it is sent."""

from typing import Any

import pytest
from xenocomm import Outcome, Turn, TurnFailed, arguments, errors
from xenocomm._gen.types import Error

pytestmark = pytest.mark.requirement("E5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_model_calls", 0),
        ("max_tokens", -1),
        ("max_steps", 0),
        ("max_cost_nanos", 0),
        ("max_cost", 0),
        ("max_cost", "0.0000000001"),
        ("step_timeout", 0),
    ],
)
def test_a_limit_that_would_limit_nothing_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"limits.{name} must be .*more than 0") as caught:
        arguments.limits({name: value})
    assert [v.field for v in caught.value.violations] == [f"limits.{name}"]


def test_no_limit_is_the_servers_default() -> None:
    assert arguments.limits({"max_tokens": None, "max_cost": None, "max_steps": 3}) == arguments.limits(
        {"max_steps": 3}
    )
    assert arguments.limits({"max_cost": "1e-9"}).max_cost_nanos == 1


def test_a_failed_turn_says_when_to_try_again() -> None:
    error = Error(reason="REASON_PROVIDER_RATE_LIMITED", metadata={"retry_after_ms": "2000"})
    assert TurnFailed(Turn(outcome=Outcome.FAILED, error=error)).retry_after_ms == 2000
    assert TurnFailed(Turn(outcome=Outcome.FAILED)).retry_after_ms is None
