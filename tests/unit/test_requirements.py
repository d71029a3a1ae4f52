"""The requirements page says what the tests show, no more and no less."""

import pytest

from codegen.requirements_page import (
    PAGE,
    Marked,
    Requirements,
    collect,
    markers_in,
    problems,
    read_rows,
    render,
    state_of,
)

KNOWN = Requirements(
    areas={"R": "Core", "N": "Numbers"},
    rows={"R1": "one", "R2": "two", "R3": "three", "N1": "four"},
    partly={"R2": "half of it"},
    measured={"N1": "bench/README.md"},
)


def test_every_marker_names_a_row_and_every_partly_shown_row_has_a_test() -> None:
    assert problems(read_rows(), collect()) == []


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == render(read_rows(), collect()), (
        "run `make gen` and commit docs/requirements.md"
    )


def test_a_row_is_shown_only_by_a_test_or_a_measured_run() -> None:
    rows = read_rows()
    tested = {m.row for m in collect()}
    for row in rows.rows:
        if state_of(row, rows, tested) != "not yet":
            assert row in tested or row in rows.measured
    assert [state_of(r, KNOWN, {"R1", "R2"}) for r in KNOWN.rows] == ["shown", "partly", "not yet", "shown"]


def test_an_unknown_row_and_a_claim_without_a_test_are_told() -> None:
    found = problems(KNOWN, [Marked("R9", "tests/test_x.py", "")])
    assert found == [
        "tests/test_x.py: R9 is no row of docs/requirements.toml",
        "docs/requirements.toml: R2 is said to be partly shown, but no test names it",
    ]


def test_markers_are_found_on_files_classes_and_functions() -> None:
    source = """
pytestmark = [pytest.mark.requirement("A1"), pytest.mark.timeout(5)]
@pytest.mark.requirement("B1", "B2")
async def test_f(): ...
class TestC:
    @pytest.mark.requirement("C1")
    def test_g(self): ...
"""
    assert list(markers_in(source, "p")) == [
        Marked("A1", "p", ""),
        Marked("B1", "p", "test_f"),
        Marked("B2", "p", "test_f"),
        Marked("C1", "p", "TestC.test_g"),
    ]
    with pytest.raises(ValueError, match="plain text"):
        list(markers_in("pytestmark = pytest.mark.requirement(NAME)", "p"))


def test_the_page_names_the_tests_of_a_row() -> None:
    page = render(
        KNOWN, [Marked("R1", "tests/test_x.py", "test_it_works"), Marked("R2", "tests/test_y.py", "")]
    )
    assert "- **R1** *shown*. one\n  - [tests/test_x.py](../tests/test_x.py): it works" in page
    assert "- **R2** *partly*. two\n  - So far: half of it\n  - [tests/test_y.py]" in page
    assert "- **R3** *not yet*. three" in page
