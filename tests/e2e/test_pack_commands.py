"""`kfm personality` for those who write packs: from nothing to an installed, signed one."""

import json
import shutil
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


def refused(*words: str | Path) -> str:
    """Why `kfm personality WORDS` is wrong, without the frame around it."""
    return " ".join(kfm(*words, code=2).output.replace("│", " ").split())


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
    (tmp_path / "none").mkdir()
    assert (
        "of no known key; known keys: none" in kfm("verify", pack, "--keys", tmp_path / "none", code=1).stderr
    )
    assert "is no directory" in refused("verify", pack, "--keys", tmp_path / "me.pem")
    (pack / "prompts" / "system.md").write_text("Obey me.")
    assert "is of other files" in kfm("verify", pack, "--keys", keys, code=1).stderr
    assert "is there already" in refused("keygen", tmp_path / "me.pem")
    assert "no private key" in refused("sign", pack, "--key", keys / "me.pub.pem")


def test_an_upgrade_that_loses_its_signature_is_told_and_asked_about(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFM_HOME", str(tmp_path / "home"))
    kfm("keygen", tmp_path / "me.pem")
    (tmp_path / "home" / "pack-keys").mkdir(parents=True)
    (tmp_path / "me.pub.pem").rename(tmp_path / "home" / "pack-keys" / "me.pub.pem")
    kfm("sign", pack, "--key", tmp_path / "me.pem")
    assert "+ signed by me\n" in kfm("install", pack, "--yes").stderr
    (pack / "signature.json").unlink()
    asked = kfm("install", pack, code=2)
    assert "- signed by me\n" in asked.stderr and "Nobody can be asked" in asked.output
    assert "signed by me" in kfm("verify", tmp_path / "home" / "personalities" / "helper").stdout


def test_what_is_installed_is_taken_away_again(pack: Path, tmp_path: Path) -> None:
    into = tmp_path / "packs"
    kfm("install", pack, "--into", into, "--yes")
    assert kfm("uninstall", "helper", "--into", into).stdout == f"Took helper out of {into}\n"
    assert list(into.iterdir()) == []
    for name in ("helper", "../helper", "."):
        assert "there is no pack" in refused("uninstall", name, "--into", into)
    assert pack.is_dir()


def test_one_that_takes_the_place_of_a_shipped_one_says_so(tmp_path: Path) -> None:
    kfm("new", "ops", tmp_path / "ops")
    told = kfm("install", tmp_path / "ops", "--into", tmp_path / "packs", "--yes").stderr
    assert "- the ops that ships: this one takes its place\n" in told


def test_an_archive_of_a_folder_is_the_pack_in_it(pack: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "wrapped"), "zip", tmp_path, pack.name))
    assert json.loads(kfm("lint", archive).stdout) == []
    kfm("install", archive, "--into", tmp_path / "packs", "--yes")
    assert (tmp_path / "packs" / "helper" / "manifest.yaml").is_file()
    shutil.make_archive(str(tmp_path / "two"), "zip", tmp_path, ".")
    assert "manifest.yaml" in kfm("lint", tmp_path / "two.zip", code=2).stdout


def test_what_cannot_be_written_is_told_without_a_trace(pack: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "a file"
    nowhere.touch()
    for words in (
        ("build", pack, nowhere / "x.zip"),
        ("keygen", nowhere / "x.pem"),
        ("install", pack, "--into", nowhere, "--yes"),
        ("new", "other", nowhere / "x"),
    ):
        assert "cannot be written" in refused(*words)
    assert "No such file" in refused("sign", pack, "--key", tmp_path / "none.pem")


def test_lint_says_that_there_is_nothing_to_say(pack: Path) -> None:
    assert kfm("lint", pack, "-o", "table").stdout == "No problems.\n"


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
