"""`make release` writes a snapshot that passes, and refuses what must not be released."""

from pathlib import Path

import pytest

from codegen import release
from codegen.contract.checks import CHECKS
from codegen.contract.tree import Tree

pytestmark = pytest.mark.requirement("S4")


def test_a_released_version_cannot_be_released_again(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="raise proto/RELEASE"):
        release.write(Tree().copy(tmp_path))


def test_a_release_says_what_is_new(tmp_path: Path) -> None:
    tree = Tree().copy(tmp_path)
    (tmp_path / "proto/RELEASE").write_text("1.99.0\n")
    with pytest.raises(ValueError, match="Say what is new"):
        release.write(tree)


def test_a_released_change_passes_every_check(tmp_path: Path) -> None:
    Tree().copy(tmp_path)
    proto = tmp_path / "proto/kfm/turn/v1/turn_service.proto"
    text = proto.read_text(encoding="utf-8")
    field = "TurnState state = 3;\n  // Place in the queue.\n  uint32 place = 4;"
    proto.write_text(text.replace("TurnState state = 3;", field, 1), encoding="utf-8")
    (tmp_path / "proto/RELEASE").write_text("1.99.0\n")
    with (tmp_path / "proto/CHANGELOG.md").open("a") as log:
        log.write("\n## next\n\nA place in the queue.\n")
    folder = release.write(Tree(tmp_path))
    assert (folder / "goldens/kfm.turn.v1.SubmitTurnResponse.json").exists()
    assert [p for check in CHECKS for p in check(Tree(tmp_path))] == []
