"""A personality as a turn keeps it: whole, with its tools, and readable by other releases."""

import json
from dataclasses import replace

import pytest
from kfm.type.v1 import type_pb2 as types
from kfm_server.models import DEFAULT_PERSONALITY, OwnTool, Personality
from kfm_server.personalities.pack import check
from kfm_server.tool_catalogue import ToolEntry
from kfm_server.turns.planners.agent import tools_of

pytestmark = pytest.mark.requirement("K2")
TOOL = OwnTool("which", "Which it is.", '{"type":"object"}')
FILES = {
    "manifest.yaml": b"name: a\nversion: 1.0.0\ndescription: d\nuses: [code]\nmax_repairs: 0\ntools:\n"
    b"  - {name: t, description: d, source: tools/t.py, input_schema: {type: object}}\n",
    "tools/t.py": b"def t(): pass\n",
}


def test_one_with_tools_of_its_own_comes_back_as_it_was() -> None:
    for personality in (
        check(FILES).personality,
        Personality("b", tools=(), own_tools=(TOOL, replace(TOOL, name="other")), pack="0" * 64),
        DEFAULT_PERSONALITY,
    ):
        assert Personality.decode(personality.encode()) == personality


def test_without_a_pack_its_digest_is_what_it_was_before_there_were_packs() -> None:
    assert DEFAULT_PERSONALITY.digest == "b801dbb450f375c2dadea1c79cea3ea44c5b4294aea359d96d9d21ff75a2a9e6"
    assert "pack" not in DEFAULT_PERSONALITY.encode()


def test_what_a_newer_release_adds_is_left_out_and_what_an_older_one_lacks_is_the_default() -> None:
    newer = json.loads(Personality("b", own_tools=(TOOL,)).encode())
    newer |= {"mood": "good", "own_tools": [newer["own_tools"][0] | {"network": True}]}
    assert Personality.decode(json.dumps(newer)).own_tools == (TOOL,)
    assert Personality.decode('{"name":"b"}') == Personality("b")


def test_all_of_the_servers_tools_and_what_all_does_not_stand_for_can_be_used_together() -> None:
    def used(uses: str) -> Personality:
        return check(
            {"manifest.yaml": f"name: a\nversion: 1.0.0\ndescription: d\nuses: {uses}\n".encode()}
        ).personality

    assert used('["*"]').tools is None
    both = used('["*", ask_person, secrets]')
    assert "ask_person" in (both.tools or ())
    catalogue = {
        name: ToolEntry(name, name, types.EFFECT_CONTRACT_PURE, {"type": "object"}, reserved=reserved)
        for name, reserved in (("calculator", False), ("secrets", True), ("others", True))
    }
    assert tools_of(both, catalogue).keys() == {"calculator", "secrets"}
    assert Personality.decode(both.encode()) == both


def test_every_file_of_a_pack_changes_the_digest_and_its_signature_does_not() -> None:
    digest = check(FILES).personality.digest
    assert check({**FILES, "knowledge/a.md": b"x"}).personality.digest != digest
    assert check({**FILES, "tools/t.py": b"def t(): return 1\n"}).personality.digest != digest
    assert check({**FILES, "signature.json": b"{}"}).personality.digest == digest


def test_a_manifest_says_what_the_personality_is() -> None:
    personality = check(FILES).personality
    assert (personality.planner, personality.tools, personality.max_repairs) == ("hybrid", ("code",), 0)
    assert check({"manifest.yaml": FILES["manifest.yaml"].split(b"uses")[0]}).personality.tools == ()
    everything = FILES["manifest.yaml"].replace(b"[code]", b'["*"]').replace(b"max_repairs: 0\n", b"")
    assert check({**FILES, "manifest.yaml": everything}).personality.tools is None
    assert check({**FILES, "manifest.yaml": everything}).personality.max_repairs == 2
