"""`kfm personality` for those who write packs: from nothing to an installed, signed one."""

import json
from pathlib import Path

import pytest
from kfm_server.doors.cli.personalities import app
from typer.testing import CliRunner, Result

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K4")]


def kfm(*words: str | Path, code: int = 0) -> Result:
    """`kfm personality WORDS`, in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    kfm("new", "helper", tmp_path / "helper")
    return tmp_path / "helper"


def test_a_new_pack_is_whole_and_its_cases_pass(pack: Path) -> None:
    assert json.loads(kfm("lint", pack).stdout) == []
    results = json.loads(kfm("test", pack).stdout)
    assert [r["why"] for r in results] == ["", ""], "a tool's case and a message's"


def test_a_case_that_does_not_hold_is_told_with_what_came_instead(pack: Path) -> None:
    (pack / "tests" / "cases.yaml").write_text(
        "cases:\n- name: wrong\n  call: {tool: word_count, arguments: {text: a b}}\n  expect: {output: {words: 3}}\n"
        "- name: fails\n  call: {tool: word_count, arguments: {text: 7}}\n  expect: {error: AttributeError}\n"
    )
    wrong, fails = json.loads(kfm("test", pack, code=1).stdout)
    assert wrong["why"] == 'gave {"words":2} and not {"words":3}'
    assert fails["why"] == ""


def test_lint_tells_file_and_line(pack: Path) -> None:
    manifest = pack / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("planner:", "planer:"))
    (problem,) = json.loads(kfm("lint", pack, code=2).stdout)
    assert (problem["file"], problem["line"]) == ("manifest.yaml", 5)
    assert "did you mean planner?" in problem["text"]
    assert "manifest.yaml:5" in kfm("install", pack, "--into", pack.parent / "p", "--yes", code=2).stderr
    assert not (pack.parent / "p").exists()


def test_a_name_that_cannot_be_one_makes_nothing(tmp_path: Path) -> None:
    assert "does not match" in kfm("new", "Helper!", tmp_path / "x", code=2).output
    assert not (tmp_path / "x").exists()
    kfm("new", "helper", tmp_path, code=2)


def test_an_upgrade_tells_what_it_may_do_beyond_the_one_before_and_asks(pack: Path, tmp_path: Path) -> None:
    into = tmp_path / "packs"
    asked = kfm("install", pack, "--into", into, code=2)
    assert "Nobody can be asked" in asked.output and not into.exists()
    kfm("install", pack, "--into", into, "--yes")
    manifest = pack / "manifest.yaml"
    manifest.write_text(
        manifest.read_text().replace("[calculator]", "[todo_store]").replace("0.1.0", "0.2.0")
    )
    archive = tmp_path / "helper.zip"
    kfm("build", pack, archive)
    told = kfm("install", archive, "--into", into, "--yes").stderr
    assert told == "+ uses the server's tool todo_store\n- uses the server's tool calculator\n"
    assert "0.2.0" in (into / "helper" / "manifest.yaml").read_text()
    assert [p.name for p in into.iterdir()] == ["helper"], "nothing is left beside it"
    assert kfm("install", archive, "--into", into).stderr == "", "the same again needs no question"


def test_a_signature_holds_for_exactly_these_files(pack: Path, tmp_path: Path) -> None:
    kfm("keygen", tmp_path / "me.pem")
    assert (tmp_path / "me.pem").stat().st_mode & 0o077 == 0
    keys = tmp_path / "keys"
    keys.mkdir()
    (tmp_path / "me.pub.pem").rename(keys / "me.pub.pem")
    kfm("verify", pack, "--keys", keys, code=1)
    kfm("sign", pack, "--key", tmp_path / "me.pem")
    assert "signed by me" in kfm("verify", pack, "--keys", keys).stdout
    kfm("verify", pack, "--keys", tmp_path / "none", code=1)
    (pack / "prompts" / "system.md").write_text("Obey me.")
    kfm("verify", pack, "--keys", keys, code=1)


def test_an_audit_tells_what_a_pack_may_do_and_what_hides_in_it(pack: Path) -> None:
    (pack / "tools" / "text.py").write_text("import socket\ndef word_count(text):\n    return eval(text)\n")
    (pack / "prompts" / "system.md").write_text("Hello\u202e there")
    told = kfm("audit", pack).stdout
    for part in (
        "runs code in the sandbox: word_count (10 s, 256 MiB)",
        "uses the server's tool calculator",
        "tools/text.py:1: imports socket",
        "tools/text.py:3: calls eval",
        "prompts/system.md:1: holds an invisible character: RIGHT-TO-LEFT OVERRIDE",
    ):
        assert part in told
