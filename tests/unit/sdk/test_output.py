"""Answers in the caller's own type."""

import json
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from functools import reduce
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xenocomm import OutputMismatch, Part, Turn, errors
from xenocomm.output import MAX_SCHEMA_BYTES, parse, schema_json

pytestmark = pytest.mark.requirement("E5")


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Place(TypedDict):
    city: str
    zip: NotRequired[int]


@dataclass
class Person:
    """Someone."""

    name: Annotated[str, "as people say it"]
    age: int | None
    place: Place
    tags: list[str] = field(default_factory=list[str])
    mood: Mood = Mood.GOOD
    kind: Literal["a", 1] = "a"
    born: date | None = None
    score: float = 0.0
    notes: dict[str, int] = field(default_factory=dict[str, int])
    pair: tuple[int, str] = (0, "")


@dataclass
class Tree:
    children: "list[Tree]"


class Model(pydantic.BaseModel):
    number: int = pydantic.Field(gt=0)


def answered(value: Any) -> Turn:
    return Turn(turn_id="turn_1", output=(Part(text="see"), Part(data_json=json.dumps(value))))


def schema(kind: Any) -> Any:
    return json.loads(schema_json(kind))


WHOLE = {
    "name": "Ann",
    "age": None,
    "place": {"city": "Rome"},
    "tags": ["x"],
    "mood": "bad",
    "kind": 1,
    "born": "2020-02-29",
    "score": 3,
    "notes": {"a": 1},
    "pair": [1, "b"],
}


def test_a_dataclass_becomes_a_closed_object_schema() -> None:
    found = schema(Person)
    assert found["required"] == ["name", "age", "place"]
    assert found["additionalProperties"] is False
    assert found["description"] == "Someone."
    assert found["properties"]["name"] == {"type": "string", "description": "as people say it"}
    assert found["properties"]["age"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert found["properties"]["place"]["required"] == ["city"]
    assert found["properties"]["mood"] == {"enum": ["good", "bad"]}
    assert found["properties"]["pair"]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]


def test_an_answer_is_read_into_the_type() -> None:
    person = parse(answered(WHOLE), Person)
    assert person == Person(
        "Ann", None, {"city": "Rome"}, ["x"], Mood.BAD, 1, date(2020, 2, 29), 3.0, {"a": 1}, (1, "b")
    )
    assert isinstance(person.score, float)
    assert parse(answered({"name": "A", "age": 1, "place": {"city": "R"}}), Person).mood is Mood.GOOD


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": 5}, "output.name"),
        ({"age": "x"}, "output.age"),
        ({"age": True}, "output.age"),
        ({"place": {}}, "output.place.city"),
        ({"place": {"city": "R", "zip": "1"}}, "output.place.zip"),
        ({"tags": ["a", 1]}, "output.tags[1]"),
        ({"mood": "odd"}, "output.mood"),
        ({"kind": True}, "output.kind"),
        ({"born": "yesterday"}, "output.born"),
        ({"notes": {"a": 1.5}}, "output.notes.a"),
        ({"pair": [1]}, "output.pair"),
        ({"pair": [1, 2]}, "output.pair[1]"),
        ({"more": 1}, "output.more"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path_and_the_turn(change: dict[str, Any], path: str) -> None:
    with pytest.raises(OutputMismatch) as wrong:
        parse(answered(WHOLE | change), Person)
    assert wrong.value.violations[0].field == path
    assert wrong.value.turn.turn_id == wrong.value.metadata["turn_id"] == "turn_1"
    assert wrong.value.reason == "REASON_OUTPUT_INVALID"


def test_an_answer_in_text_does_not_fit() -> None:
    with pytest.raises(OutputMismatch, match="is text"):
        parse(Turn(output=(Part(text="5"),)), Person)


def test_a_pydantic_model_brings_its_own_schema_and_checks() -> None:
    assert schema(Model)["properties"]["number"]["exclusiveMinimum"] == 0
    assert parse(answered({"number": 5}), Model) == Model(number=5)
    with pytest.raises(OutputMismatch, match="greater than 0"):
        parse(answered({"number": 0}), Model)
    assert parse(answered([{"number": 5}]), list[Model]) == [Model(number=5)]


def test_a_schema_of_the_callers_is_sent_as_it_is_and_gives_plain_json() -> None:
    own = {"type": "object", "properties": {"x": {"$ref": "#/$defs/y"}}, "$defs": {"y": {}}}
    assert schema(own) == own
    assert parse(answered({"x": [1, None]}), own) == {"x": [1, None]}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Tree, "contains itself"),
        (set[int], r"output is set\[int\]"),
        (dict[int, str], "output is dict"),
        ({"x": object()}, "no JSON"),
        ({"enum": ["x" * MAX_SCHEMA_BYTES]}, str(MAX_SCHEMA_BYTES)),
        (reduce(lambda inner, _: {"not": inner}, range(3000), {}), "nested deeper than 100"),
        (reduce(lambda inner, _: list[inner], range(3000), int), "nested deeper than 100"),
    ],
)
def test_a_type_without_a_schema_is_refused_with_the_part(kind: Any, why: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=why):
        schema_json(kind)


def test_times_are_read() -> None:
    assert schema(datetime) == {"type": "string", "format": "date-time"}
    assert parse(answered("2020-01-02T03:04:05+00:00"), datetime).year == 2020


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WHOLE, "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(JSON)
def test_any_json_fits_or_is_a_mismatch(value: Any) -> None:
    for kind in (Person, list[Place], Model, int | list[Person], dict[str, Mood]):
        try:
            parse(answered(value), kind)
        except OutputMismatch as wrong:
            assert wrong.violations[0].field.startswith("output")
