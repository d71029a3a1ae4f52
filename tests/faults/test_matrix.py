"""A seeded sample of the fault matrix; all of it by `make faults` or `python -m tests.faults.matrix.run`."""

import os
from argparse import Namespace
from pathlib import Path

import pytest

from tests.faults.matrix.cells import BUSES, STARTING, Bus, cells, declared, roles_of
from tests.faults.matrix.results import latest
from tests.faults.matrix.run import run
from tests.support import iggy

SAMPLE = 2
"""Cells of each bus."""


def test_every_failpoint_of_the_code_has_cells_on_every_bus_where_it_can_be_passed() -> None:
    made = cells(seed=1)
    assert len({cell.name for cell in made}) == len(made)
    assert {cell.point for cell in made} == set(declared())
    assert {(cell.point, cell.role) for cell in made} == {
        (p, role) for p in declared() for role in roles_of(p)
    }
    assert set(STARTING) <= set(declared())


@pytest.mark.requirement("R6", "R8", "R10", "FT1", "FT2")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("bus", BUSES)
async def test_a_kill_at_a_drawn_point_loses_no_turn_and_duplicates_no_effect(
    bus: Bus, tmp_path: Path
) -> None:
    if bus == "bus_iggy" and not iggy.real():
        pytest.skip(
            "NOT SHOWN HERE: no real Iggy server (KFM_TEST_IGGY, KFM_TEST_IGGY_SERVER, or iggy-server on PATH)"
        )
    seed = int(os.environ.get("KFM_TEST_SEED", "1"))
    print(f"seed {seed}")
    results = tmp_path / "results.jsonl"
    sample = Namespace(
        bus=[bus], seed=seed, only="", sample=SAMPLE, minutes=3, go_on=False, results=results, list=False
    )
    wrong = await run(sample)
    assert (wrong, len(latest(results))) == (0, SAMPLE), results.read_text()
