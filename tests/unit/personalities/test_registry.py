"""The packs of a process: read again when their directories change, and never a worse one in place of a good one."""

import asyncio
import os
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from kfm.event.v1.system_events_pb2 import PackChangedEvent
from kfm_server.personalities.files import read_directory, to_archive, write
from kfm_server.personalities.pack import load
from kfm_server.personalities.registry import PackRegistry
from kfm_server.personalities.store import PackStore
from kfm_server.personalities.trust import Trust, TrustError, new_key, private_key, sign

pytestmark = pytest.mark.requirement("K2")
SECONDS = 30.0
WITH_TOOL = "tools:\n  - {name: t, description: d, source: tools/t.py, input_schema: {type: object}}\n"


class Rows:
    """The two statements of packs over a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}

    async def __call__(self, name: str, *given: Any) -> Sequence[Any]:
        if name == "keep_pack":
            digest, pack, version, archive = given
            self.kept.setdefault(digest, {"name": pack, "version": version, "archive": archive})
            return []
        assert name == "pack"
        return [self.kept[given[0]]] if given[0] in self.kept else []


def only_refused(changes: Sequence[PackChangedEvent]) -> bool:
    """Something was, and what is in force is what was."""
    return bool(changes) and all(c.problems and c.digest == c.digest_before for c in changes)


class Room:
    """A registry over two directories."""

    def __init__(self, home: Path, **how: Any) -> None:
        self.shipped, self.own = home / "shipped", home / "own"
        for directory in (self.shipped, self.own):
            directory.mkdir(parents=True, exist_ok=True)
        self.rows = Rows()
        self.store = PackStore(home / "packs", self.rows)
        trust = Trust(home / "keys", how.pop("policy", "any"))
        self.registry = PackRegistry(
            (self.shipped, self.own), self.store, trust, trusted=(self.shipped,), **how
        )

    def put(self, name: str, version: str, more: str = "", directory: Path | None = None) -> Path:
        """Write a pack whole, as `kfm personality install` does."""
        at = (directory or self.own) / name
        shutil.rmtree(at, ignore_errors=True)
        manifest = f"name: {name}\nversion: {version}\ndescription: d\n{more}"
        write({"manifest.yaml": manifest.encode(), "tools/t.py": b"def t(): pass\n"}, at)
        return at

    def versions(self) -> dict[str, str]:
        """What is in force."""
        return {name: personality.version for name, personality in self.registry.personalities.items()}

    def problems(self) -> dict[str, tuple[str, ...]]:
        """What is told, of those with problems."""
        return {state.name: state.problems for state in self.registry.states() if state.problems}


async def test_a_broken_edit_keeps_the_last_good_one_and_a_mend_takes_it(tmp_path: Path) -> None:
    room = Room(tmp_path)
    at = room.put("a", "1.0.0")
    assert await room.registry.load()
    good = load(at).digest
    (at / "manifest.yaml").unlink()
    (refused,) = await room.registry.load()
    assert refused == PackChangedEvent(
        pack="a",
        version_before="1.0.0",
        digest_before=good,
        version="1.0.0",
        digest=good,
        problems=["manifest.yaml: is missing"],
    )
    assert not await room.registry.load(), "told once"
    assert (room.versions(), room.problems()) == ({"a": "1.0.0"}, {"a": ("manifest.yaml: is missing",)})
    room.put("a", "1.1.0")
    (change,) = await room.registry.load()
    assert change == PackChangedEvent(
        pack="a", version_before="1.0.0", digest_before=good, version="1.1.0", digest=load(at).digest
    )
    assert (room.versions(), room.problems()) == ({"a": "1.1.0"}, {})
    shutil.rmtree(at)
    (gone,) = await room.registry.load()
    assert (gone.pack, gone.version_before, gone.version, gone.digest) == ("a", "1.1.0", "", "")
    assert not await room.registry.load(), "told once"


async def test_one_that_never_was_good_is_told_and_not_in_force(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.put("a", "one")
    assert only_refused(await room.registry.load())
    assert room.versions() == {}
    assert room.problems()["a"][0].startswith("manifest.yaml:2: version: does not match")
    (state,) = room.registry.states()
    assert (state.version, state.digest) == ("", "")


async def test_what_is_removed_is_gone_and_its_turns_still_find_it(tmp_path: Path) -> None:
    room = Room(tmp_path)
    at = room.put("a", "1.0.0")
    await room.registry.load()
    digest = room.registry.personalities["a"].pack
    shutil.rmtree(at)
    assert await room.registry.load()
    assert (room.versions(), room.registry.states()) == ({}, ())
    another = PackStore(tmp_path / "elsewhere", room.rows)
    found = await another.find(digest)
    assert found is not None
    assert found.digest == digest
    assert load(another.directory(digest)).digest == digest
    assert await another.find("0" * 64) is None


async def test_of_two_with_one_name_the_users_counts_and_a_broken_one_does_not_bring_the_other_back(
    tmp_path: Path,
) -> None:
    room = Room(tmp_path)
    room.put("a", "1.0.0", directory=room.shipped)
    at = room.put("a", "2.0.0")
    await room.registry.load()
    assert room.versions() == {"a": "2.0.0"}
    (at / "manifest.yaml").write_text("name: [")
    assert only_refused(await room.registry.load())
    assert room.versions() == {"a": "2.0.0"}
    assert room.problems()["a"]
    shutil.rmtree(at)
    assert await room.registry.load()
    assert (room.versions(), room.problems()) == ({"a": "1.0.0"}, {})


async def test_a_broken_copy_at_the_start_leaves_the_shipped_one_in_force_and_is_told(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.put("a", "1.0.0", directory=room.shipped)
    room.put("a", "two")
    await room.registry.load()
    assert room.versions() == {"a": "1.0.0"}
    assert room.problems()["a"]


async def test_a_pack_in_a_directory_of_another_name_is_refused(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.put("a", "1.0.0").rename(room.own / "b")
    os.mkdir(os.fsencode(room.own) + b"/\xff")
    (room.own / "a file").touch()
    (room.own / ".half").mkdir()
    await room.registry.load()
    assert room.versions() == {}
    assert room.problems()["b"] == ("manifest.yaml: name: is 'a', and its directory is called 'b'",)
    assert set(room.problems()) == {"b", "?"}
    assert all(text.encode() for told in room.problems().values() for text in told)


async def test_tools_are_refused_where_nothing_confines_them_and_packs_without_tools_are_not(
    tmp_path: Path,
) -> None:
    reasons = ["no namespaces", "", "unasked"]

    async def why() -> str:
        return reasons.pop(0)

    room = Room(tmp_path, cannot_confine=why)
    room.put("shipped", "1.0.0", WITH_TOOL, room.shipped)
    room.put("plain", "1.0.0")
    room.put("tools", "1.0.0", WITH_TOOL)
    await room.registry.load()
    assert room.versions() == {"plain": "1.0.0", "shipped": "1.0.0"}
    assert "cannot confine them: no namespaces" in room.problems()["tools"][0]
    for _ in range(2):
        await room.registry.load()
        assert (room.versions()["tools"], room.problems()) == ("1.0.0", {}), "a host may be mended"


@pytest.mark.requirement("K4")
async def test_where_signatures_are_asked_for_only_the_shipped_packs_need_none(tmp_path: Path) -> None:
    private, public = new_key()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "us.pem").write_bytes(public)
    room = Room(tmp_path, policy="signed")
    room.put("shipped", "1.0.0", directory=room.shipped)
    at = room.put("mine", "1.0.0")
    await room.registry.load()
    assert room.versions() == {"shipped": "1.0.0"}
    assert room.problems()["mine"] == (
        "signature.json: is missing: nobody signed this; known keys: us; only signed packs are taken here",
    )
    (at / "signature.json").write_bytes(sign(load(at), private_key(private)))
    assert await room.registry.load()
    assert room.versions() == {"mine": "1.0.0", "shipped": "1.0.0"}
    assert {s.name: s.signed_by for s in room.registry.states()} == {"mine": "us", "shipped": ""}
    (at / "tools" / "t.py").write_text("def t(): return 'other'\n")
    assert only_refused(await room.registry.load())
    assert room.problems()["mine"] == (
        "signature.json: is of other files: something was changed since; known keys: us; only signed packs are taken here",
    )
    assert room.registry.personalities["mine"].pack in room.rows.kept, "the signed one stays in force"


@pytest.mark.requirement("K4")
async def test_a_key_counts_from_when_it_is_there_until_it_is_gone(tmp_path: Path) -> None:
    private, public = new_key()
    room = Room(tmp_path, policy="signed")
    room.put("mine", "1.0.0", directory=room.shipped)
    at = room.put("mine", "2.0.0")
    (at / "signature.json").write_bytes(sign(load(at), private_key(private)))
    await room.registry.load()
    assert room.versions() == {"mine": "1.0.0"}
    changed = asyncio.Event()

    async def note(_: Sequence[PackChangedEvent]) -> None:
        changed.set()

    watching = asyncio.create_task(room.registry.run(note, poll=0.01))
    try:
        (tmp_path / "keys").mkdir()
        (tmp_path / "keys" / "us.pem").write_bytes(public)
        async with asyncio.timeout(SECONDS):
            await changed.wait()
    finally:
        watching.cancel()
    assert (room.versions(), room.problems()) == ({"mine": "2.0.0"}, {})
    (tmp_path / "keys" / "us.pem").write_text("no key")
    with pytest.raises(TrustError, match=r"us\.pem is no public key"):
        await room.registry.load()
    assert room.versions() == {"mine": "2.0.0"}, "what cannot be read says nothing"
    (tmp_path / "keys" / "us.pem").unlink()
    (event,) = await room.registry.load()
    assert (event.version_before, event.version) == ("2.0.0", "1.0.0"), "it is trusted no more"
    assert "of no known key" in event.problems[0]


async def test_changes_are_seen_once_they_are_over_and_half_of_one_is_never_taken(tmp_path: Path) -> None:
    room = Room(tmp_path)
    at = room.put("a", "1.0.0")
    room.put("linked", "1.0.0", directory=tmp_path / "elsewhere")
    (room.own / "linked").symlink_to(tmp_path / "elsewhere" / "linked")
    await room.registry.load()
    taken: list[dict[str, str]] = []
    changed = asyncio.Event()

    async def note(_: Sequence[PackChangedEvent]) -> None:
        taken.append(room.versions())
        changed.set()

    async def next_change() -> None:
        async with asyncio.timeout(SECONDS):
            await changed.wait()
            changed.clear()

    watching = asyncio.create_task(room.registry.run(note, poll=0.01))
    try:
        half = room.own / ".b.half"
        half.mkdir()
        (half / "manifest.yaml").write_text("name: b\n")
        (at / "manifest.yaml").write_text("name: a\nversion: 1.1.0\ndescription: d\n")
        await next_change()
        (half / "manifest.yaml").write_text("name: b\nversion: 1.0.0\ndescription: d\n")
        half.rename(room.own / "b")
        await next_change()
        (tmp_path / "elsewhere" / "linked" / "manifest.yaml").write_text(
            "name: linked\nversion: 2.0.0\ndescription: d\n"
        )
        await next_change()
    finally:
        watching.cancel()
    a, b = {"a": "1.1.0"}, {"b": "1.0.0"}
    assert taken == [a | {"linked": "1.0.0"}, a | b | {"linked": "1.0.0"}, a | b | {"linked": "2.0.0"}]


async def test_one_that_cannot_be_unpacked_is_told_and_the_others_are_taken(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.put("a", "1.0.0")
    large = room.put("b", "1.0.0") / "large.md"
    large.write_bytes(b"x" * 1_000_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))  # stands for a disk that is full
    try:
        await room.registry.load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert room.versions() == {"a": "1.0.0"}
    assert room.problems() == {"b": ("pack: cannot be unpacked: [Errno 27] File too large",)}
    taken: list[Sequence[PackChangedEvent]] = []
    changed = asyncio.Event()

    async def note(changes: Sequence[PackChangedEvent]) -> None:
        taken.append(changes)
        changed.set()

    watching = asyncio.create_task(room.registry.run(note, poll=0.01))
    try:
        async with asyncio.timeout(SECONDS):
            await changed.wait()
    finally:
        watching.cancel()
    assert [[(c.pack, c.digest) for c in taken[0]]] == [[("b", load(large.parent).digest)]], (
        "without an edit, once there is room"
    )


@pytest.mark.parametrize("how", ["edited", "emptied", "linked", "a file"])
async def test_files_that_somebody_changed_after_they_were_kept_are_not_run_but_written_again(
    how: str, tmp_path: Path
) -> None:
    room = Room(tmp_path)
    at = room.put("a", "1.0.0")
    await room.registry.load()
    digest = room.registry.personalities["a"].pack
    kept = room.store.directory(digest)
    if how == "edited":
        (kept / "tools" / "t.py").write_text("def t(): return 'other'\n")
    else:
        shutil.rmtree(kept)
    if how == "emptied":
        kept.mkdir()
    elif how == "linked":
        kept.symlink_to(tmp_path)
    elif how == "a file":
        kept.write_text("x")
    for again in ("found", "loaded"):
        another = Room(tmp_path)
        another.rows = room.rows
        if again == "found":
            assert await PackStore(tmp_path / "packs", room.rows).find(digest) is not None
        else:
            await another.registry.load()
            assert (another.versions(), another.problems()) == ({"a": "1.0.0"}, {})
        assert not kept.is_symlink()
        assert read_directory(kept) == read_directory(at)
        (kept / "manifest.yaml").write_text("")
    assert [p.name for p in (tmp_path / "packs").iterdir()] == [digest], "nothing is left beside it"


async def test_two_processes_of_one_home_unpack_the_same_pack_at_the_same_time(tmp_path: Path) -> None:
    room = Room(tmp_path)
    pack = load(room.put("a", "1.0.0"))
    stores = [PackStore(tmp_path / "packs", room.rows) for _ in range(8)]
    await asyncio.gather(*(store.keep(pack) for store in stores))
    assert load(stores[0].directory(pack.digest)) == pack
    assert [p.name for p in (tmp_path / "packs").iterdir()] == [pack.digest]


async def test_what_an_older_release_kept_and_this_one_refuses_is_not_found(tmp_path: Path) -> None:
    rows = Rows()
    rows.kept["1" * 64] = {"archive": to_archive({"manifest.yaml": b"nme: a\n"})}
    rows.kept["2" * 64] = {"archive": b"no archive"}
    store = PackStore(tmp_path, rows)
    assert await store.find("1" * 64) is None
    assert await store.find("2" * 64) is None
