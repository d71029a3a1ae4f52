"""The registry refuses at the start what would hurt later."""

from typing import Any

import pytest
from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import ToolCall, ToolSpec
from kfm_server.tools.registry import ToolRegistry, ToolsInvalid, build_registry, load_tools

pytestmark = pytest.mark.requirement("T2")


class Echo:
    def __init__(
        self, name: str = "echo", effect: types.EffectContract = types.EFFECT_CONTRACT_PURE, **rest: Any
    ) -> None:
        schema = rest.pop("schema", {"type": "object"})
        self.spec = ToolSpec(name, "Echoes.", schema, effect, **rest)

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        return arguments


ECHOES = [Echo("echo_one"), Echo("echo_two")]
NOT_TOOLS = ["echo"]


def test_extra_tools_come_by_module_and_attribute() -> None:
    import sys

    sys.modules["registry_extra"] = sys.modules[__name__]
    registry = build_registry("registry_extra:ECHOES")
    assert set(registry.catalogue) == {"calculator", "todo_store", "echo_one", "echo_two"}
    assert registry.digest != build_registry().digest == build_registry("").digest
    for names, why in [
        ("registry_extra", "form module:ATTRIBUTE"),
        ("no_such_module_here:X", "cannot be loaded"),
        ("registry_extra:NOTHING", "cannot be loaded"),
        ("registry_extra:NOT_TOOLS", "no spec and call"),
        ("registry_extra:ECHOES,registry_extra:ECHOES", "two tools"),
    ]:
        with pytest.raises(ToolsInvalid, match=why):
            ToolRegistry(load_tools(names))


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ([Echo(), Echo()], "two tools"),
        ([Echo("Echo")], "no name of a tool"),
        ([Echo(schema={"type": "array"})], "type object"),
        ([Echo(schema={"type": "objekt"})], "not valid"),
        ([Echo(schema={"type": "object", "default": float("nan")})], "no JSON"),
        ([Echo(effect=types.EFFECT_CONTRACT_COMPENSATABLE)], "compensation"),
        ([Echo(effect=types.EFFECT_CONTRACT_COMPENSATABLE, compensation="undo")], "no tool 'undo'"),
        ([Echo(compensation="echo")], "only with it"),
        (
            [
                Echo("do", types.EFFECT_CONTRACT_COMPENSATABLE, compensation="undo"),
                Echo("undo", types.EFFECT_CONTRACT_AT_MOST_ONCE),
            ],
            "must be IDEMPOTENT",
        ),
    ],
)
def test_a_tool_that_breaks_a_rule_stops_the_start(tools: list[Any], why: str) -> None:
    with pytest.raises(ToolsInvalid, match=why):
        ToolRegistry(tools)


def test_a_tool_that_states_no_contract_is_taken_as_at_most_once() -> None:
    registry = ToolRegistry([Echo(effect=types.EFFECT_CONTRACT_UNSPECIFIED)])
    assert registry.catalogue["echo"].effect == types.EFFECT_CONTRACT_AT_MOST_ONCE


def test_tools_come_and_go_with_their_source_and_spoil_nobody_elses() -> None:
    registry = ToolRegistry([Echo("echo")])
    bare = registry.digest
    changed, refused = registry.supply("a", [Echo("a_one"), Echo("echo"), Echo("a-two"), Echo("a_one")])
    assert changed and set(registry.tools) == set(registry.catalogue) == {"echo", "a_one"}
    assert [why.split(":")[0] for why in refused] == ["echo", "'a-two' is no name of a tool", "a_one"]
    assert registry.supply("a", [Echo("a_one")]) == (False, [])
    assert registry.supply("b", [Echo("b_one")]) == (True, [])
    assert registry.supply("a", []) == (True, [])
    assert set(registry.tools) == {"echo", "b_one"}
    registry.supply("b", [])
    assert registry.digest == bare
    registry.supply("a", [Echo("a_one")])
    with pytest.raises(ToolsInvalid, match="the server has a tool of this name"):
        registry.offer("pool", [Echo("a_one").spec])
