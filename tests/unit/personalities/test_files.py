"""Files of packs: nothing in them leads outside, all of it is bounded, and the same files are the same pack."""

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kfm_server.personalities import files as room
from kfm_server.personalities.files import (
    MOST_ENTRIES,
    MOST_FILE_BYTES,
    MOST_FOLDERS,
    Files,
    digest_of,
    read_archive,
    read_directory,
    to_archive,
    write,
)
from kfm_server.personalities.problems import PackInvalid

pytestmark = pytest.mark.requirement("K1", "ST11")
FILES: Files = {
    "manifest.yaml": b"name: a\n",
    "prompts/system.md": b"Be brief.",
    "tools/a b.py": b"\0\xff" * 99,
}


def refused(directory: Path) -> str:
    with pytest.raises(PackInvalid) as caught:
        read_directory(directory)
    return str(caught.value)


def archive_of(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def test_links_in_a_directory_are_not_taken_wherever_they_lead(tmp_path: Path) -> None:
    pack, outside = tmp_path / "pack", tmp_path / "outside"
    (pack / "prompts").mkdir(parents=True)
    outside.write_text("secret")
    for target in (outside, tmp_path, Path("nowhere"), Path("manifest.yaml")):
        (pack / "prompts" / "x.md").symlink_to(target)
        assert refused(pack) == "prompts/x.md: is neither a file nor a directory; links are not taken"
        (pack / "prompts" / "x.md").unlink()
    os.mkfifo(pack / "pipe")
    assert "is neither a file nor a directory" in refused(pack)


def test_a_file_that_becomes_a_link_while_it_is_read_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"), open(tmp_path / "link", opener=room._no_link):  # pyright: ignore[reportPrivateUsage]
        pass


def test_names_that_a_pack_cannot_have_are_told_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for hidden in (".git/x", "__pycache__/x", "tools/.x.swp", "prompts/x.md~", "#x.md#"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).write_text("x")
    assert read_directory(tmp_path) == {}
    for name in (b"a\\b", b"a\nb", b"\xff", b"-rf", b"a:b", b"a" * 122):
        path = os.fsencode(tmp_path) + b"/" + name
        os.close(os.open(path, os.O_CREAT))
        assert "is no name of a file in a pack" in refused(tmp_path)
        os.unlink(path)


def test_a_directory_is_bounded_in_depth_and_size_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "deep"
    (deep / "/".join("d" * MOST_FOLDERS)).mkdir(parents=True)
    (deep / "/".join("d" * MOST_FOLDERS) / "x").touch()
    assert f"lies in more than {MOST_FOLDERS} folders" in refused(deep)
    large = tmp_path / "large"
    large.mkdir()
    with (large / "x").open("wb") as file:
        file.truncate(MOST_FILE_BYTES + 1)
    assert (
        refused(large) == f"x: has more than {MOST_FILE_BYTES} bytes, the most that a file of a pack may have"
    )
    monkeypatch.setattr(room, "MOST_FILES", 2)
    many = tmp_path / "many"
    write(dict.fromkeys("abc", b""), many)
    assert refused(many) == "pack: has more than 2 files"


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "./a", "..", "a\\..\\b", "C:/x", "C:x", ".hidden/x", "~/x", "a/ b",
     "-a", "a\nb", "a\x1b[2J", "é", "a|b", "a/" * 20 + "x", "__pycache__/a.pyc", "x" * 200],
)  # fmt: skip
def test_an_archive_cannot_name_what_lies_outside_or_cannot_be_a_name(name: str) -> None:
    with pytest.raises(PackInvalid):
        read_archive(archive_of(("manifest.yaml", b""), (name, b"x")))


def test_an_entry_without_a_name_is_refused() -> None:
    content = archive_of(("x", b"y")).replace(b"x", b"")
    with pytest.raises(PackInvalid):
        read_archive(content)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_in_an_archive_are_refused(kind: int) -> None:
    info = zipfile.ZipInfo("prompts/x.md")
    info.external_attr = (kind | 0o777) << 16
    with pytest.raises(PackInvalid, match="is no plain file; links are not taken"):
        read_archive(archive_of((info, b"/etc/passwd")))


def test_a_name_that_stands_twice_or_is_a_folder_too_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = archive_of(("a", b"1"), ("a", b"2"))
    with pytest.raises(PackInvalid, match="a: stands in the archive twice"):
        read_archive(twice)
    with pytest.raises(PackInvalid, match="a: is a file and a folder"):
        read_archive(archive_of(("a", b"1"), ("a/b", b"2")))


@pytest.mark.parametrize("names", [("a", "A"), ("a/b", "A/c"), ("a/B/c", "a/b"), ("a/B", "a/b/c")])
def test_names_that_some_disk_takes_for_the_same_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(PackInvalid, match="only in case"):
        read_archive(archive_of(*((name, b"x") for name in names)))
    write(dict.fromkeys(names, b"x"), tmp_path / "pack")
    if sum(1 for at in (tmp_path / "pack").rglob("*") if at.is_file()) == len(names):
        assert "only in case" in refused(tmp_path / "pack")


def test_entries_that_share_their_content_are_refused() -> None:
    content = bytearray(archive_of(("a", b"x" * 100), ("b", b"y" * 100)))
    second = content.rindex(b"PK\1\2")
    content[second + 42 : second + 46] = bytes(4)  # it begins where the first does
    with pytest.raises(PackInvalid):
        read_archive(bytes(content))


def test_an_entry_that_begins_where_no_file_reaches_is_refused() -> None:
    content = bytearray(archive_of(("a", b"x")))
    entry, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    far = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    content[end + 12 : end + 16] = (end - entry + len(far)).to_bytes(4, "little")
    content[end:end] = far
    content[entry + 30 : entry + 32] = len(far).to_bytes(2, "little")
    content[entry + 42 : entry + 46] = b"\xff" * 4  # it stands in the extra field
    with pytest.raises(PackInvalid, match="a: cannot be unpacked"):
        read_archive(bytes(content))


def test_a_million_entries_are_refused_without_a_table_of_them() -> None:
    entry = (
        struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
        + b"a"
    )
    directory = entry * 1_000_000
    for told in (65535, 1):  # what it says of itself is not asked
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, told, told, len(directory), 0, 0)
        with pytest.raises(PackInvalid, match=f"archive: has more than {MOST_ENTRIES} entries"):
            read_archive(directory + end)


def test_what_unpacks_to_too_much_is_refused_before_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive_of(("x", b"\0" * (MOST_FILE_BYTES + 1)))
    assert len(bomb) < MOST_FILE_BYTES / 500
    with pytest.raises(PackInvalid, match=f"x: has more than {MOST_FILE_BYTES} bytes"):
        read_archive(bomb)
    monkeypatch.setattr(room, "MOST_BYTES", 1000)
    with pytest.raises(PackInvalid, match="pack: has more than 1000 bytes"):
        read_archive(archive_of(*((name, b"\0" * 400) for name in "abc")))
    with pytest.raises(PackInvalid, match="archive: has more than 1000 bytes"):
        read_archive(archive_of(("x", os.urandom(1000))))


def test_what_says_a_smaller_size_than_it_has_is_refused() -> None:
    content = bytearray(archive_of(("x", b"y" * 5000)))
    for header, at in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = content.index(header) + at
        content[place : place + 4] = (10).to_bytes(4, "little")
    with pytest.raises(PackInvalid, match="cannot be unpacked"):
        read_archive(bytes(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_whose_output_nobody_bounds_are_refused(method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("x", b"y" * 1000)
    with pytest.raises(PackInvalid, match="is packed in another way"):
        read_archive(buffer.getvalue())


def test_an_encrypted_archive_is_refused_as_such() -> None:
    content = bytearray(archive_of(("manifest.yaml", b"name: a")))
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(PackInvalid, match=r"^manifest\.yaml: is encrypted$"):
        read_archive(bytes(content))


def test_the_same_files_make_the_same_digest_and_the_same_archive(tmp_path: Path) -> None:
    write(FILES, tmp_path / "one")
    write(dict(reversed(list(FILES.items()))), tmp_path / "two")
    os.utime(tmp_path / "two" / "manifest.yaml", (0, 0))
    (tmp_path / "two" / "manifest.yaml").chmod(0o755)
    one, two = read_directory(tmp_path / "one"), read_directory(tmp_path / "two")
    assert one == two == FILES
    assert digest_of(one) == digest_of(two)
    assert to_archive(one) == to_archive(two)
    assert read_archive(to_archive(one)) == FILES


def test_a_digest_tells_every_name_and_byte_but_the_signature() -> None:
    digest = digest_of(FILES)
    assert digest_of({**FILES, "signature.json": b"{}"}) == digest
    assert digest_of({**FILES, "tools/signature.json": b"{}"}) != digest
    others = [{"ab": b"c"}, {"a": b"bc"}, {"a": b"", "b": b"c"}, {"a": b"b", "c": b""}, {"a\0": b"c"}, {}]
    assert len({digest_of(other) for other in others}) == len(others)


def test_whoever_looks_sees_a_whole_pack_or_none(tmp_path: Path) -> None:
    with pytest.raises(PackInvalid):
        write({"a": b"1", "../b": b"2"}, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
    assert not (tmp_path / "b").exists()


NAMES = st.from_regex(r"[a-z0-9_][a-z.-]{0,5}(/[a-z_][a-z.]{0,5}){0,3}", fullmatch=True)


@settings(max_examples=60)
@given(st.dictionaries(NAMES, st.binary(max_size=40), max_size=6))
def test_what_can_be_packed_comes_back_from_its_archive(files: dict[str, bytes]) -> None:
    folders = {"/".join(path.split("/")[:n]) for path in files for n in range(1, path.count("/") + 1)}
    try:
        back = read_archive(to_archive(files))
    except PackInvalid as error:
        assert folders & files.keys(), error
        return
    assert back == files
    assert digest_of(back) == digest_of(files)


@settings(max_examples=300)
@given(st.binary(max_size=100), st.integers(0, 400), st.integers(0, 20))
def test_any_bytes_as_an_archive_are_files_or_refused(junk: bytes, at: int, cut: int) -> None:
    whole = to_archive({"manifest.yaml": b"name: a\n" * 9, "a/b": b"x"})
    for content in (junk, whole[:at] + junk + whole[at + cut :]):
        try:
            read_archive(content)
        except PackInvalid as error:
            assert error.problems
