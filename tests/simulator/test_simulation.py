"""FT25: seeds of the simulator. `make faults` runs 200; more: `python -m tests.simulator.run --seeds 10000`."""

import pytest

from tests.simulator.simulation import simulate

SEEDS = 60
_CHUNK = 20


@pytest.mark.requirement("R4", "E5", "FT25")
@pytest.mark.parametrize("first", range(0, SEEDS, _CHUNK))
def test_whatever_breaks_every_turn_ends_as_its_log_and_its_contracts_say(first: int) -> None:
    for seed in range(first, first + _CHUNK):
        outcome = simulate(seed)
        assert not outcome.violations, "\n".join(
            (
                *outcome.violations[:12],
                f"replay: python -m tests.simulator.run --from {seed} --seeds 1 --verbose",
            )
        )


def test_a_seed_gives_the_same_journal_each_time() -> None:
    first, second = simulate(3), simulate(3)
    assert first == second
    assert first.events > 0
