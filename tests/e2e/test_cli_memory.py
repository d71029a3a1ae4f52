"""`kfm memory` against a whole server: a folder goes in, is searched, and one user's data is shown and erased."""

import asyncio
import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from xenocomm.testing import ServerInProcess, server

from tests.support import forking

pytestmark = [pytest.mark.requirement("M1", "M4", "E6"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def running() -> Generator[ServerInProcess]:
    with server() as found:
        yield found


async def memory(running: ServerInProcess, *words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit code, output and errors of `kfm memory WORDS`."""
    pipe = asyncio.subprocess.PIPE
    environment = {"KFM_ENDPOINT": running.endpoint, "HOME": "/nowhere", "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *forking.kfm(),
        "memory",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        env=environment,
        cwd=cwd,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents, and what is none."""
    (tmp_path / "deep").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hidden.md").write_text("# Hidden")
    (tmp_path / "code.py").write_text("pass")
    (tmp_path / "travel.md").write_text("# Travel\n\nA night in a hotel may cost 180 euros at most.")
    (tmp_path / "deep" / "cats.txt").write_text("Cats sleep a lot.")
    return tmp_path


async def test_a_folder_goes_in_is_searched_and_goes(running: ServerInProcess, folder: Path) -> None:
    code, out, _ = await memory(running, "add", "handbook", str(folder))
    assert (code, json.loads(out)["added"]) == (0, 2)
    _, out, _ = await memory(running, "add", "handbook", str(folder))
    assert json.loads(out)["unchanged"] == 2
    _, out, _ = await memory(running, "search", "what may a hotel cost", "--limit", "1", "-o", "id")
    assert out.split() == ["travel.md"]
    _, out, _ = await memory(running, "search", "cats", "--collection", "handbook", "-o", "table")
    assert "deep/cats.txt" in out
    _, out, _ = await memory(running, "list", "-o", "jsonl", "--fields", "collection,documents")
    assert {"collection": "handbook", "documents": 2} in map(json.loads, out.splitlines())
    code, _, err = await memory(running, "drop", "handbook")
    assert (code, "--yes" in err) == (2, True)
    _, out, _ = await memory(running, "drop", "handbook", "--yes")
    assert json.loads(out) == {"collection": "handbook", "documents": 2}
    code, _, err = await memory(running, "search", "cats", "--collection", "handbook")
    assert (code, json.loads(err)["error"]["reason"]) == (3, "REASON_MEMORY_NOT_FOUND")


async def test_one_document_that_cannot_be_read_is_named_and_the_others_go_in(
    running: ServerInProcess, folder: Path
) -> None:
    (folder / "broken.pdf").write_bytes(b"no PDF")
    code, out, err = await memory(running, "add", "mixed", str(folder))
    told = json.loads(out)
    assert (code, told["added"], told["failed"]) == (2, 2, 1)
    assert told["failures"][0]["source"] == "broken.pdf"
    assert err.startswith("broken.pdf: this is no PDF")


async def test_documents_of_one_name_in_several_places_are_kept_apart(
    running: ServerInProcess, folder: Path
) -> None:
    (folder / "deep" / "travel.md").write_text("# Travel deep")
    _, out, _ = await memory(
        running, "add", "apart", "travel.md", "./deep/../deep/travel.md", "-o", "json", cwd=folder
    )
    assert json.loads(out)["added"] == 2
    _, out, _ = await memory(running, "add", "apart", "../travel.md", cwd=folder / "deep")
    assert json.loads(out)["added"] == 1
    _, out, _ = await memory(running, "search", "travel", "--collection", "apart", "-o", "id")
    assert set(out.split()) == {"travel.md", "deep/travel.md", str(folder / "travel.md")}
    _, out, err = await memory(running, "add", "apart", ".", "travel.md", cwd=folder)
    assert json.loads(out)["failed"] == 0, err
    code, _, err = await memory(running, "add", "apart", ".", "deep", cwd=folder)
    assert (code, "2 documents are called travel.md: add a folder above them" in err) == (2, True)


async def test_links_that_lead_out_of_the_folder_are_named_and_not_read(
    running: ServerInProcess, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.md").write_text("# Secret")
    (folder / "out.md").symlink_to(outside / "secret.md")
    (folder / "far").symlink_to(outside)
    (folder / "round.md").symlink_to("round.md")
    (folder / "again.md").symlink_to("travel.md")
    code, out, err = await memory(running, "add", "linked", str(folder))
    told = json.loads(out)
    assert (code, told["added"]) == (2, 3)
    assert {f["source"] for f in told["failures"]} == {"out.md", "far", "round.md"}
    assert "out.md: the link leads out of the folder" in err
    _, out, _ = await memory(running, "search", "secret", "--collection", "linked", "-o", "id")
    assert set(out.split()) <= {"travel.md", "again.md", "deep/cats.txt"}


async def test_documents_are_removed_by_name_or_when_their_files_are_gone(
    running: ServerInProcess, folder: Path
) -> None:
    (folder / "third.md").write_text("# Third")
    await memory(running, "add", "shrinking", str(folder))
    code, out, err = await memory(running, "remove", "shrinking", "third.md", "none.md")
    assert (code, json.loads(out)["removed"], json.loads(out)["missing"]) == (3, 1, ["none.md"])
    assert err == "shrinking has no document none.md\n"
    (folder / "third.md").unlink()
    (folder / "travel.md").unlink()
    _, out, _ = await memory(running, "add", "shrinking", str(folder))
    assert json.loads(out)["removed"] == 0
    code, out, _ = await memory(running, "add", "shrinking", str(folder), "--remove-missing")
    assert (code, json.loads(out)["removed"], json.loads(out)["unchanged"]) == (0, 1, 1)
    _, out, _ = await memory(running, "search", "hotel cats", "--collection", "shrinking", "-o", "id")
    assert out.split() == ["deep/cats.txt"]
    code, _, err = await memory(running, "add", "shrinking", str(folder / ".git"), "--remove-missing")
    assert code == 0
    (folder / ".git" / "hidden.md").unlink()
    code, _, err = await memory(running, "add", "shrinking", str(folder / ".git"), "--remove-missing")
    assert (code, "nothing is removed" in err) == (2, True)


async def test_a_document_too_large_for_a_request_is_named_with_the_limit(
    running: ServerInProcess, folder: Path
) -> None:
    (folder / "vast.txt").write_bytes(b"a" * (9 * 1024 * 1024))
    (folder / "edge.txt").write_bytes(b"a" * (4 * 1024 * 1024))
    code, out, err = await memory(running, "add", "sizes", str(folder))
    told = json.loads(out)
    assert (code, told["added"], told["failed"]) == (2, 2, 2)
    assert "vast.txt: it is over max_message_bytes=4194304" in err
    assert all("max_message_bytes=4194304" in failure["why"] for failure in told["failures"])


async def test_files_of_other_types_are_counted_and_named_when_asked(
    running: ServerInProcess, folder: Path
) -> None:
    code, out, err = await memory(running, "add", "typed", str(folder))
    assert (code, json.loads(out)["skipped"], err) == (0, 1, "")
    _, _, err = await memory(running, "add", "typed", str(folder), "-v")
    assert err == "code.py: skipped, its type is not read\n"


async def test_what_is_kept_of_a_user_is_exported_and_erased(running: ServerInProcess, folder: Path) -> None:
    await memory(running, "add", "of-ada", "travel.md", "--owner", "ada", cwd=folder)
    _, out, _ = await memory(running, "export", "ada")
    (kept,) = map(json.loads, out.splitlines())
    assert (kept["kind"], kept["source"]) == ("documents", "travel.md")
    _, out, _ = await memory(running, "erase", "ada", "--yes")
    assert json.loads(out)["erased"]["documents"] == 1
    assert (await memory(running, "export", "ada"))[1] == ""
