"""A turn on a terminal: what is long begins there, and the command that prints it whole stands beside it."""

import json

import pytest
from kfm_server.doors.cli.printing import Form, Format
from kfm_server.doors.cli.show import LONGEST_ANSWER, LONGEST_CELL, show_turn
from xenocomm import Turn
from xenocomm._gen.types import Part, PlanStep, Step

pytestmark = pytest.mark.requirement("E6")


def turn_of(size: int, answer: int = 10) -> Turn:
    """One step that gave a text of that many characters, and one whose output stands elsewhere."""
    steps = (
        Step(definition=PlanStep(key="read", tool="fetch", arguments_json="{}"), output_json="x" * size),
        Step(definition=PlanStep(key="big", tool="fetch"), output_digest="ab" * 32, output_bytes=99_000_000),
    )
    return Turn(turn_id="T", steps=steps, output=(Part(text="y" * answer),))


def shown(turn: Turn, form: Format, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed, without what breaks and fills lines."""
    show_turn(turn, Form(form))
    return "".join(capsys.readouterr().out.split())


def test_a_long_output_begins_in_the_table_and_its_size_and_command_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    told = shown(turn_of(1_000_000), Format.TABLE, capsys)
    assert len(told) < 1000 and told.count("x") >= 200
    assert "(1000000bytes;whole:kfmturnoutputTread)" in told
    assert "(99000000bytes;whole:kfmturnoutputTbig)" in told


def test_an_output_that_is_not_long_stands_whole_in_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    told = shown(turn_of(LONGEST_CELL), Format.TABLE, capsys)
    assert told.count("x") >= LONGEST_CELL and "outputTread" not in told


def test_a_long_answer_is_cut_above_the_table_and_its_command_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = shown(turn_of(10, answer=1_000_000), Format.TABLE, capsys)
    assert told.startswith("y" * LONGEST_ANSWER + "…(1000000bytes;whole:kfmturngetT-ojson--fieldsoutput)")


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_turn(turn_of(1_000_000, answer=1_000_000), Form(Format.JSON))
    told = json.loads(capsys.readouterr().out)
    assert len(told["steps"][0]["output_json"]) == len(told["output"][0]["text"]) == 1_000_000
