"""References: what a pointer names is put in, or a sentence says why not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm_server.canonical import canonical_json, parse_json, pointer_token, sanitised_json
from kfm_server.turns.references import UnresolvedReference, resolve_arguments

pytestmark = pytest.mark.requirement("R4")

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=4), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: "$ref" not in str(value))  # fmt: skip


def _places(value: Any, pointer: str = "") -> list[tuple[str, Any]]:
    found = [(pointer, value)]
    if isinstance(value, dict):
        for name, item in value.items():
            found += _places(item, f"{pointer}/{pointer_token(name)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _places(item, f"{pointer}/{index}")
    return found


@given(_JSON)
def test_every_place_of_an_output_can_be_named(output: Any) -> None:
    for pointer, value in _places(output):
        arguments = json.dumps({"a": [{"$ref": f"s1#{pointer}"}]})
        assert resolve_arguments(arguments, {"s1": canonical_json(output)}) == canonical_json({"a": [value]})


@given(_JSON)
def test_canonical_arguments_without_references_come_back_as_they_are(value: Any) -> None:
    text = canonical_json({"b": value, "a": 1})
    assert resolve_arguments(text, {}) == text


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_reference_resolves_or_says_why(reference: str, output: str) -> None:
    try:
        resolve_arguments(canonical_or_empty({"$ref": reference}), {"s1": canonical_or_empty(output)})
    except UnresolvedReference as error:
        assert str(error)


def canonical_or_empty(value: Any) -> str:
    try:
        return canonical_json(value)
    except ValueError:
        return '""'


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ('{"x":{"$ref":"s2#/a"}}', "/x: step 's2' has no output"),
        ('{"x":{"$ref":"s1#/b"}}', "nothing at '/b'"),
        ('{"x":[{"$ref":"s1#/a/2"}]}', "/x/0: .* nothing at '/a/2'"),
        ('{"x":{"$ref":"s1#/a/01"}}', "nothing at"),
        ('{"x":{"$ref":"s1#/a/-"}}', "nothing at"),
        ('{"x":{"$ref":"s1"}}', "is no reference"),
        ('{"x":{"$ref":"s1#a"}}', "is no reference"),
        ('{"x":{"$ref":"s1#/~2"}}', "is no reference"),
        ('{"x":{"$ref":1}}', 'the one key "\\$ref"'),
        ('{"x":{"$ref":"s1#/a","y":1}}', 'the one key "\\$ref"'),
        ('{"$ref":', "not JSON"),
    ],
)
def test_a_reference_that_names_nothing_says_where_and_why(arguments: str, why: str) -> None:
    with pytest.raises(UnresolvedReference, match=why):
        resolve_arguments(arguments, {"s1": '{"a":[1,2]}'})


def test_keys_with_slashes_and_tildes_are_escaped_as_the_standard_says() -> None:
    outputs = {"s1": '{"a/b":{"m~n":7}}'}
    assert resolve_arguments('{"x":{"$ref":"s1#/a~1b/m~0n"}}', outputs) == '{"x":7}'


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**64, {1: 2}, {"a": object()}, "\ud800", b"x", {1, 2}]
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical_json({"v": value} if not isinstance(value, dict) else value)


def test_nesting_is_bounded() -> None:
    value: Any = 1
    for _ in range(200):
        value = [value]
    with pytest.raises(ValueError, match="nested"):
        canonical_json(value)
    for depth in (101, 5000):
        with pytest.raises(ValueError, match=r"nested|JSON"):
            parse_json("[" * depth + "]" * depth)


def test_control_characters_are_taken_out_of_outputs() -> None:
    assert sanitised_json({"a\x00": "x\x1b[31m\n\ty\r\x7f\ud800"}) == '{"a":"x[31m\\n\\ty"}'
