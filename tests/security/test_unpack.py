"""Archives of packs: what would be written elsewhere, or without end, is refused before anything is written."""

import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from kfm_server.sandbox.unpack import ArchiveRefused, UnpackLimits, unpack

pytestmark = [pytest.mark.requirement("K3", "ST11"), pytest.mark.timeout(60)]


def made(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


def tree(place: Path) -> list[str]:
    return sorted(p.relative_to(place).as_posix() for p in place.rglob("*"))


def test_a_sound_archive_is_unpacked_readable_for_all_and_executable_for_none(tmp_path: Path) -> None:
    archive = made(
        tmp_path / "p.zip",
        ("pack.yaml", b"name: x"),
        ("tools/", b""),
        (special("tools/a.py", 0o104777), b"A = 1"),
    )
    assert unpack(archive, tmp_path / "out" / "pack") == ["pack.yaml", "tools/a.py"]
    assert tree(tmp_path / "out") == ["pack", "pack/pack.yaml", "pack/tools", "pack/tools/a.py"]
    assert stat.S_IMODE((tmp_path / "out/pack/tools/a.py").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "out/pack/tools").stat().st_mode) == 0o755
    with pytest.raises(FileExistsError):
        unpack(archive, tmp_path / "out" / "pack")


@pytest.mark.parametrize(
    "name",
    [
        "../out.txt", "a/../../out.txt", "/etc/cron.d/x", "//x", "a//b", "./a", "a/.", "..", "C:/x", "C:x", "a\\..\\b",
        "a\nb", "a\x1bb", "a\u202eb", "e\u0301", " a", "a ", "a.", "a/b./c", "x" * 300, "/".join("a" * 20),
        "__pycache__/a.cpython-311.pyc", "a.pyc", "evil.pth", "a?b",
    ],
)  # fmt: skip
def test_a_name_that_is_no_path_below_the_pack_is_refused(tmp_path: Path, name: str) -> None:
    archive = made(tmp_path / "p.zip", ("fine.txt", b"x"), (zipfile.ZipInfo(name), b"x"))
    with pytest.raises(ArchiveRefused):
        unpack(archive, tmp_path / "out" / "pack")
    assert tree(tmp_path) == ["out", "p.zip"]


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140666, 0o040755])
def test_links_devices_pipes_and_sockets_are_refused(tmp_path: Path, mode: int) -> None:
    archive = made(tmp_path / "p.zip", (special("link", mode), b"/etc/passwd"))
    with pytest.raises(ArchiveRefused, match="neither a file nor a directory"):
        unpack(archive, tmp_path / "pack")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("a", "A"), ("straße", "STRASSE"), ("ﬁ", "fi"), ("a/b", "A/c"), ("a", "a/b"), ("a/b", "a")],
)
def test_names_that_some_disk_takes_for_the_same_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    archive = made(tmp_path / "p.zip", *((name, b"x") for name in names))
    with pytest.raises(ArchiveRefused):
        unpack(archive, tmp_path / "pack")


def test_every_limit_is_enforced_and_named(tmp_path: Path) -> None:
    small = UnpackLimits(
        archive_bytes=20_000, total_bytes=10_000, entries=5, ratio=10, depth=3, name_length=20
    )
    noise = bytes(i * 7919 % 251 for i in range(6000))
    cases: dict[str, tuple[tuple[str, bytes], ...]] = {
        "archive_bytes": tuple((f"f{n}", os.urandom(6000)) for n in range(5)),
        "total_bytes": (("a", noise), ("b", noise)),
        "entries": tuple((f"f{n}", b"") for n in range(6)),
        "ratio": (("zeros", b"\0" * 9_000),),
        "depth": (("a/b/c/d", b""),),
        "name_length": (("x" * 21, b""),),
    }
    for limit, entries in cases.items():
        with pytest.raises(ArchiveRefused, match=limit):
            unpack(made(tmp_path / f"{limit}.zip", *entries), tmp_path / "pack", small)
    assert not (tmp_path / "pack").exists()


def test_gigabytes_from_little_are_refused(tmp_path: Path) -> None:
    archive = made(tmp_path / "p.zip", *((f"f{n}", b"\0" * (8 << 20)) for n in range(8)))
    assert archive.stat().st_size < 100_000
    with pytest.raises(ArchiveRefused, match="ratio"):
        unpack(archive, tmp_path / "pack")


def test_a_million_entries_are_refused_without_reading_them(tmp_path: Path) -> None:
    archive = tmp_path / "p.zip"
    directory = 46 * 600_000
    archive.write_bytes(
        b"\0" * directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, directory, 0, 0)
    )
    with pytest.raises(ArchiveRefused, match="entries"):
        unpack(archive, tmp_path / "pack")


def changed(archive: Path, change: Callable[[bytearray], None]) -> Path:
    content = bytearray(archive.read_bytes())
    change(content)
    archive.write_bytes(content)
    return archive


def test_entries_that_share_their_content_are_refused(tmp_path: Path) -> None:
    archive = made(tmp_path / "p.zip", ("a", b"x" * 100), ("b", b"y" * 100))

    def overlap(content: bytearray) -> None:
        second = content.rindex(b"PK\1\2")
        content[second + 42 : second + 46] = bytes(4)  # it begins where the first does

    with pytest.raises(ArchiveRefused):
        unpack(changed(archive, overlap), tmp_path / "pack")


def test_a_file_that_is_longer_than_it_says_or_damaged_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    def shorter(content: bytearray) -> None:
        entry = content.rindex(b"PK\1\2")
        content[entry + 24 : entry + 28] = struct.pack("<L", 10)

    def damaged(content: bytearray) -> None:
        content[40] ^= 0xFF

    for change in (shorter, damaged):
        archive = made(tmp_path / "p.zip", ("first", b"fine"), ("second", bytes(range(256)) * 4))
        with pytest.raises(ArchiveRefused):
            unpack(changed(archive, change), tmp_path / "pack")
        assert tree(tmp_path) == ["p.zip"]


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6", b"not a zip" * 100, b"PK\5\6" + b"\xff" * 18])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.zip").write_bytes(content)
    with pytest.raises(ArchiveRefused):
        unpack(tmp_path / "p.zip", tmp_path / "pack")
