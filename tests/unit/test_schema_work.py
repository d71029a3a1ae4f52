"""A schema of a few lines must not take years to check, and what people write must pass."""

import functools
import json
from typing import Any

import pytest
from kfm.catalogue.errors import InvalidArgument
from kfm_server.canonical import canonical_json
from kfm_server.doors.grpc.validation import check_schema
from kfm_server.schema_work import TooMuchWork, check_work, depth_of

pytestmark = pytest.mark.requirement("R3")


def doubled(levels: int) -> dict[str, Any]:
    """Each definition refers twice to the next."""
    following = [{"$ref": f"#/$defs/d{n + 1}"} for n in range(levels)]
    definitions: dict[str, Any] = {f"d{n}": {"anyOf": [ref, ref]} for n, ref in enumerate(following)}
    return {"$defs": {**definitions, f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


TREE = {
    "type": "object",
    "properties": {name: {"anyOf": [{"type": "null"}, {"$ref": "#"}]} for name in ("left", "right")},
}
JSON = {"anyOf": [{"type": "string"}, {"items": {"$ref": "#"}}, {"additionalProperties": {"$ref": "#"}}]}
TWICE = {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}


@pytest.mark.parametrize(
    "schema", [True, {"type": "integer"}, TREE, doubled(5), {"anyOf": [{"$ref": "#"}] * 2}]
)
def test_what_is_little_work_passes_at_any_depth(schema: Any) -> None:
    check_work(schema, 100)
    check_schema("turn.output_schema_json", canonical_json(schema))


@pytest.mark.parametrize("schema", [JSON, TWICE])
def test_a_schema_that_meets_itself_twice_is_held_against_flat_values_only(schema: Any) -> None:
    check_work(schema, 5)
    with pytest.raises(TooMuchWork):
        check_work(schema, 50)


@pytest.mark.parametrize(
    "schema",
    [
        doubled(30),
        {"$dynamicRef": "#x", "$dynamicAnchor": "x"},
        {"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}},
        functools.reduce(lambda inner, _: {"not": inner}, range(150), dict[str, Any]()),
    ],
)
def test_what_can_never_be_checked_is_refused_at_the_door(schema: Any) -> None:
    with pytest.raises(InvalidArgument, match="output_schema"):
        check_schema("turn.output_schema_json", json.dumps(schema))


@pytest.mark.parametrize(("value", "depth"), [(1, 0), ([], 0), ([1], 1), ({"a": [[2], 3]}, 3)])
def test_depth_counts_what_has_members(value: Any, depth: int) -> None:
    assert depth_of(value) == depth
