"""The answer is what the tools said, in the order of the plan."""

import json

import pytest
from kfm.type.v1 import type_pb2 as types
from kfm_server.turns.answer import MAX_TEXT, render_answer

pytestmark = pytest.mark.requirement("R2")


def test_texts_are_joined_and_outputs_stand_beside_them() -> None:
    steps = [types.PlanStep(key=key) for key in ("s1", "s2", "s3", "s4")]
    outputs = ['{"text":"Added \\"buy milk\\" to your todos."}', '{"text":"You have 1 todo"}', "", '{"n":1}']
    text, data = render_answer(zip(steps, outputs, strict=True))
    assert text.text == 'Added "buy milk" to your todos.\nYou have 1 todo'
    assert json.loads(data.data_json) == {
        "s1": json.loads(outputs[0]),
        "s2": {"text": "You have 1 todo"},
        "s4": {"n": 1},
    }


def test_an_answer_without_outputs_has_no_parts() -> None:
    assert render_answer([(types.PlanStep(key="s1"), "")]) == ()


def test_an_answer_that_is_a_text_speaks_for_itself() -> None:
    assert render_answer([(types.PlanStep(key="ask"), '"yes"')])[0].text == "yes"


def test_a_long_answer_is_cut_and_a_large_one_leaves_its_data_with_the_steps() -> None:
    (text,) = render_answer([(types.PlanStep(key="s1"), json.dumps({"text": "x" * 300_000}))])
    assert len(text.text) == MAX_TEXT
    assert text.text.endswith(" …")
