"""Escapes by way of files: what is outside of the grant is not there."""

from typing import Any

import pytest

from tests.security.conftest import CANARY, Prison, secret_beside

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K3", "ST13"), pytest.mark.timeout(300)]

READS = {
    "a file of the host": "open('/etc/passwd').read()",
    "a secret beside the pack": "open(secret).read()",
    "a way up": "open(pack + '/../' + os.path.basename(secret)).read()",
    "a link of the pack that leads out": "open(pack + '/link').read()",
    "a link of the pack to the host": "open(pack + '/passwd').read()",
    "a link that it makes": "os.symlink(secret, 'link')\nopen('link').read()",
    "a hard link that it makes": "os.link(pack + '/helper.py', 'link')",
    "the root of a process": "open('/proc/1/root/etc/passwd').read()",
    "the environment of a process": "open('/proc/1/environ').read()",
    "its own memory map": "open('/proc/self/maps').read()",
    "the devices": "open('/dev/sda', 'rb').read(1)",
    "the memory of the machine": "open('/dev/mem', 'rb').read(1)",
    "the kernel's settings": "open('/sys/kernel/notes', 'rb').read(1)",
    "shared memory": "open('/dev/shm/x', 'w')",
    "a device that it makes": "os.mknod('disk', 0o60600, os.makedev(8, 0))",
    "the old root": "os.chroot('/run')",
    "a file by its handle": "syscall(304, -100, 0, 0) if os.uname().machine == 'x86_64' else syscall(265, -100, 0, 0)",
}
WRITES = {
    "the pack": "open(pack + '/helper.py', 'w')",
    "a new file of the pack": "open(pack + '/new.py', 'w')",
    "bytecode beside the pack": "import py_compile\npy_compile.compile(pack + '/helper.py', doraise=True)",
    "start-up code of Python": "open(os.path.dirname(os.__file__) + '/evil.pth', 'w')",
    "the library": "open(os.__file__, 'a')",
    "a library of the system": "open('/usr/lib/evil.so', 'w')",
    "temporary files of the host": "open('/tmp/evil', 'w')",
    "its root": "os.mkdir('/evil')",
    "the place of its scratch directory": "os.mkdir('/run/evil')",
    "a pipe to others": "os.mkfifo(pack + '/pipe')",
    "the mode of the pack": "os.chmod(pack, 0o777)",
    "the owner of the pack": "os.chown(pack, os.getuid(), os.getgid())",
    "the time of the pack": "os.utime(pack + '/helper.py')",
    "an end of the pack": "os.unlink(pack + '/helper.py')",
}  # fmt: skip


@pytest.fixture
def known(prison: Prison) -> dict[str, Any]:
    return {"secret": str(secret_beside(prison.pack))}


async def test_no_file_outside_of_the_grant_can_be_read(prison: Prison, known: dict[str, Any]) -> None:
    for name, source in READS.items():
        end = await prison.attempt(source, known)
        assert end.get("failed") in ("FileNotFoundError", "PermissionError", "OSError"), (name, end)


async def test_nothing_but_its_own_directory_can_be_written(prison: Prison, known: dict[str, Any]) -> None:
    before = sorted(prison.pack.iterdir())
    for name, source in WRITES.items():
        end = await prison.attempt(source, known)
        assert end.get("failed") in ("FileNotFoundError", "PermissionError", "OSError"), (name, end)
    assert sorted(prison.pack.iterdir()) == before
    assert (prison.pack / "helper.py").read_text() == "ANSWER = 42\n"


async def test_importing_the_pack_works_and_leaves_no_bytecode(prison: Prison) -> None:
    assert await prison.value("import helper\nhelper.ANSWER") == 42
    assert not (prison.pack / "__pycache__").exists()


async def test_it_sees_a_root_that_holds_only_what_it_needs(prison: Prison) -> None:
    assert (
        set(await prison.value("os.listdir('/')")) & {"home", "proc", "sys", "var", "boot", "mnt", "opt"}
        == set()
    )
    assert await prison.value("os.listdir('/dev')") == ["null"]
    beside = await prison.value("os.listdir(os.path.dirname(pack))")
    assert beside == [prison.pack.name]


async def test_its_directory_is_empty_at_the_start_of_every_call(prison: Prison) -> None:
    assert await prison.value("open('kept', 'w').write('x')\nos.listdir()") == ["kept"]
    assert await prison.value("[os.getcwd(), os.listdir()]") == ["/run/scratch", []]


async def test_nothing_that_it_writes_can_be_executed(prison: Prison) -> None:
    source = "open('run', 'w').write('#!/bin/sh\\n')\nos.chmod('run', 0o755)\nos.execv('./run', ['run'])"
    assert (await prison.attempt(source))["failed"] == "PermissionError"


@pytest.mark.parametrize(
    "source",
    [
        "open('large', 'wb').write(b'x' * (2 << 20))",
        "for n in range(100): open(f'part{n}', 'wb').write(b'x' * 100_000)",
        "for n in range(5000): open(f'small{n}', 'w').close()",
    ],
)
async def test_a_full_directory_is_a_limit_and_the_next_call_has_a_fresh_one(
    prison: Prison, source: str
) -> None:
    assert (await prison.attempt(source))["limit"] == "scratch_bytes"
    assert await prison.value("open('fresh', 'wb').write(b'x' * 500_000)") == 500_000


async def test_no_file_of_the_server_is_open_in_it(prison: Prison) -> None:
    source = """
kinds = []
for number in range(3, 1024):
    try:
        kinds.append(os.fstat(number).st_mode & 0o170000 == 0o10000)
    except OSError:
        pass
kinds"""
    assert await prison.value(source) == [True]  # one pipe: for its result


async def test_the_environment_and_the_command_line_tell_nothing(prison: Prison) -> None:
    environment = await prison.value("dict(os.environ)")
    assert environment == {"HOME": "/run/scratch", "TMPDIR": "/run/scratch", "LANG": "C.UTF-8"}
    assert CANARY not in str(await prison.value("[sys.argv, sys.orig_argv, sys.path, sys.flags.isolated]"))


async def test_open_files_are_bounded_and_free_again_for_the_next_call(prison: Prison) -> None:
    end = await prison.attempt("kept = [open('/dev/null') for _ in range(10_000)]")
    assert end["failed"] == "OSError" and "Too many open files" in end["text"]
    assert await prison.value("len([open('/dev/null') for _ in range(10)])") == 10
