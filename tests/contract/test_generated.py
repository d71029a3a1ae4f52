"""What is committed is what the protos say, and a proto that breaks a rule of the generators fails the build."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from kfm.catalogue import events
from kfm.catalogue.methods import METHODS

from codegen.contract.tree import ROOT, Tree
from codegen.protoc_gen_mcp_tools import NAME, SCHEMA_BYTES, compact
from codegen.schema import SchemaError

CATALOGUE = ROOT / "gen/python/kfm/catalogue"


@pytest.mark.requirement("S1", "S2")
def test_generated_files_are_fresh() -> None:
    command = [sys.executable, "codegen/generate.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ('scope: "server.read"', "", "set scope"),
        ('not_in_mcp: "hosts learn it from the protocol itself"', "", "exactly one of mcp and not_in_mcp"),
    ],
)
def test_an_rpc_with_incomplete_options_fails_the_build(
    old: str, new: str, advice: str, tmp_path: Path
) -> None:
    tree = Tree().copy(tmp_path)
    proto = tmp_path / "proto/kfm/admin/v1/admin_service.proto"
    proto.write_text(proto.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SchemaError, match=advice):
        list(_method_options(tree))


@pytest.mark.requirement("S1")
def test_an_rpc_without_our_option_fails_the_build(tmp_path: Path) -> None:
    tree = Tree().copy(tmp_path)
    proto = tmp_path / "proto/kfm/admin/v1/admin_service.proto"
    text = proto.read_text(encoding="utf-8")
    proto.write_text(
        re.sub(r"    option \(kfm.options.v1.method\) = \{.*?\n    \};\n", "", text, count=1, flags=re.S)
    )
    with pytest.raises(SchemaError, match=r"GetServerInfo has no \(kfm.options.v1.method\) option: add"):
        list(_method_options(tree))


def _method_options(tree: Tree) -> Iterator[object]:
    schema = tree.head.schema
    for package, service, method in schema.methods():
        yield schema.method_options(f"/{package}.{service.name}/{method.name}", method)


@pytest.mark.requirement("S1")
def test_every_rpc_is_in_the_catalogue_with_a_description_and_an_example() -> None:
    assert all(m.description and json.loads(m.example) is not None for m in METHODS.values())
    assert METHODS["/kfm.turn.v1.TurnService/SubmitTurn"].http == ("POST", "/v1/turns")


@pytest.mark.requirement("S1")
def test_tools_stay_within_what_hosts_take() -> None:
    for tool in json.loads((CATALOGUE / "mcp_tools.json").read_text(encoding="utf-8")):
        assert NAME.match(tool["name"])
        for part in ("inputSchema", "outputSchema"):
            text = compact(tool[part])
            assert len(text) <= SCHEMA_BYTES
            assert not {"$ref", "oneOf", "anyOf", "allOf"} & set(text.split('"'))
            jsonschema_rs.meta.validate(tool[part])


@pytest.mark.requirement("S3")
@pytest.mark.parametrize("name", events.EVENT_TYPES)
def test_the_json_of_an_event_fits_its_json_schema(name: str) -> None:
    document = json.loads((ROOT / f"docs/reference/schemas/{name}.json").read_text(encoding="utf-8"))
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    message = events.EVENT_TYPES[name].full_name
    golden = {n: j for n, _, _, j in Tree().snapshots[-1].goldens()}[message]
    jsonschema_rs.Draft202012Validator(document).validate(golden)


@pytest.mark.requirement("K1")
@pytest.mark.parametrize("pack", ["assistant", "analyst", "ops"])
def test_the_files_of_a_pack_fit_their_published_json_schemas(pack: str) -> None:
    folder = ROOT / "server/kfm_server/personalities/shipped" / pack
    (cases,) = (folder / "tests").glob("*.yaml")
    for name, file in (("Manifest", folder / "manifest.yaml"), ("PackTests", cases)):
        document = json.loads((ROOT / f"docs/reference/schemas/{name}.json").read_text(encoding="utf-8"))
        validator = jsonschema_rs.Draft202012Validator(document)
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
        validator.validate(written)
        assert not validator.is_valid(written | {"mispelled": 1})
        for required in document["required"]:
            assert not validator.is_valid({k: v for k, v in written.items() if k != required})


def test_reflection_has_our_comments_and_the_sdk_has_none_of_our_options() -> None:
    assert b"Envelope holds one event" in (CATALOGUE / "image.binpb").read_bytes()
    sdk = (ROOT / "sdk/python/xenocomm/_gen/image.binpb").read_bytes()
    assert b"kfm.options" not in sdk
    assert b"buf/validate" not in sdk
    assert len(sdk) < 40_000
