"""The tools as hosts and model APIs take them: the strictest limits that any of them has."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kfm_mcp.catalogue import GROUPS, entries, offered

pytestmark = pytest.mark.requirement("E4")

TOOLS = [entry.tool.model_dump(by_alias=True, exclude_none=True) for entry in entries().values()]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema within a schema."""
    if isinstance(schema, dict):
        yield schema
        for key, held in schema.items():
            below = held.values() if key == "properties" else [held]
            for one in below:
                yield from nodes(one) if isinstance(one, dict) else ()


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool["name"])
def test_a_schema_is_what_every_host_takes(tool: dict[str, Any]) -> None:
    for part in ("inputSchema", "outputSchema"):
        assert len(compact(tool[part])) <= 1024, part
        assert tool[part]["type"] == "object"
        for node in nodes(tool[part]):
            assert isinstance(node.get("type"), str), node
            assert not {"$ref", "$defs", "oneOf", "anyOf", "allOf"} & set(node)
    assert tool["inputSchema"]["additionalProperties"] is False
    assert "additionalProperties" not in tool["outputSchema"]
    assert len(tool["name"]) <= 40


def test_the_list_of_a_group_fits_into_eight_kilobytes() -> None:
    for group in ("", *GROUPS):
        listed = [entry.tool for entry in entries().values() if entry.group == group]
        assert len(compact([t.model_dump(by_alias=True, exclude_none=True) for t in listed])) <= 8192, group


def test_groups_are_off_until_they_are_asked_for() -> None:
    assert "kfm_step_answer" not in offered()
    assert "kfm_step_answer" in offered(["steps"])
    assert all(entry.read_only for entry in offered(["steps"], read_only=True).values())
    with pytest.raises(ValueError, match="there are: steps"):
        offered(["everything"])
