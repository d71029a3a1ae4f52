"""Escapes by way of the kernel: the network, other processes, users, and its wider doors."""

import errno
import os
import socket
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kfm_server.sandbox.inside import seccomp

from tests.security.conftest import Prison, secret_beside

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K3", "ST13"), pytest.mark.timeout(300)]


@pytest.fixture
def listeners(pack: Path) -> Generator[dict[str, Any]]:
    """Doors of the host that anybody on it can knock at."""
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        unix, abstract = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        place, name = str(pack / "socket"), f"kfm-{os.getpid()}"
        unix.bind(place)
        os.chmod(place, 0o777)
        abstract.bind(f"\0{name}")
        for listening in (tcp, udp, unix, abstract):
            listening.settimeout(0)
            if listening is not udp:
                listening.listen()
        yield {
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": place,
            "abstract": name,
            "sockets": (tcp, udp, unix, abstract),
        }


NETWORK = {
    "TCP": "socket.create_connection(('127.0.0.1', tcp), 1)",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', udp))",
    "IPv6": "socket.socket(socket.AF_INET6).connect(('::1', tcp))",
    "a Unix socket in the pack": "socket.socket(socket.AF_UNIX).connect(unix)",
    "an abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0' + abstract)",
    "a name": "socket.getaddrinfo('localhost', 80)",
    "a name of the world": "socket.gethostbyname('example.com')",
    "metadata of a cloud": "import urllib.request\nurllib.request.urlopen('http://169.254.169.254/', timeout=1)",
    "raw packets": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "packets below": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "virtual machines": "socket.socket(socket.AF_VSOCK).connect((2, 1))",
    "the kernel's ciphers": "socket.socket(socket.AF_ALG)",
    "a connection through a pair": "socket.socketpair()[0].connect(unix)",
    "a datagram through a pair": (
        "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '\\0' + abstract)"
    ),
}


async def test_there_is_no_network_of_any_kind(prison: Prison, listeners: dict[str, Any]) -> None:
    sockets = listeners.pop("sockets")
    for name, source in NETWORK.items():
        end = await prison.attempt(source, listeners)
        assert "failed" in end, (name, end)
    for listening in sockets:
        with pytest.raises(BlockingIOError):
            listening.recv(1) if listening.type == socket.SOCK_DGRAM else listening.accept()


OTHERS = {
    "signal the first process": "os.kill(1, signal.SIGKILL)",
    "interrupt the first process": "os.kill(1, signal.SIGINT)",
    "stop the first process": "os.kill(1, signal.SIGSTOP)",
    "signal everybody": "os.kill(-1, signal.SIGKILL)",
    "signal the server": "os.kill(server, signal.SIGKILL)",
    "signal the test": "os.kill(test, signal.SIGKILL)",
    "a thread of the first process": "syscall(234, 1, 1, 9) if os.uname().machine == 'x86_64' else syscall(131, 1, 1, 9)",
    "a signal by a handle": "signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGINT)",
    "trace the first process": "syscall(101, 16, 1, 0, 0) if os.uname().machine == 'x86_64' else syscall(117, 16, 1, 0, 0)",
    "limits of the first process": "resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))",
    "priority of the first process": "os.setpriority(os.PRIO_PROCESS, 1, 19)",
    "cores of the first process": "os.sched_setaffinity(1, {0})",
    "become root": "os.setuid(0)",
    "become another": "os.setresuid(1, 1, 1)",
    "groups": "os.setgroups([0])",
    "more memory": "resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "more time": "resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
    "new namespaces": "libc.unshare(0x10000000) and syscall(272 if os.uname().machine == 'x86_64' else 97, 0x10000000)",
    "a program": "os.execv(sys.executable, ['python'])",
    "a shell": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'true'])",
    "a spawned program": "os.posix_spawn('/bin/true', ['true'], {})",
    "the name of the host": "socket.sethostname('x')",
    "the clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
}  # fmt: skip


MOUNTS = {
    "a file system": (b"none", b"/run/scratch", b"tmpfs", 0),
    "the pack, elsewhere": (b"/", b"/run/scratch", None, 4096),
    "its root, writable": (b"none", b"/", None, 32 | 4096),
    "the processes of the host": (b"proc", b"/run/scratch", b"proc", 0),
    "the kernel's settings": (b"sysfs", b"/run/scratch", b"sysfs", 0),
    "what is shared with the host": (b"none", b"/", None, 1 << 20),
}


async def test_nothing_can_be_mounted_or_unmounted(prison: Prison) -> None:
    for name, arguments in MOUNTS.items():
        end = await prison.attempt(f"[libc.mount(*{arguments!r}, None), ctypes.get_errno()]")
        assert end.get("value") == [-1, errno.EPERM], (name, end)
    for place in (b"/", b"/run/scratch", b"/dev/null"):
        end = await prison.attempt(f"[libc.umount2({place!r}, 2), ctypes.get_errno()]")
        assert end.get("value") == [-1, errno.EPERM], (place, end)


async def test_the_name_of_the_host_is_not_told(prison: Prison) -> None:
    assert await prison.value("[os.uname().nodename, socket.gethostname()]") == ["sandbox", "sandbox"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other machines have no second door")
async def test_the_doors_of_older_programs_are_closed(prison: Prison) -> None:
    source = """
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))  # getpid by int 0x80, whose numbers are others
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()"""
    end = await prison.attempt(source)
    assert end["failed"] == "SystemExit" and "-31" in end["text"]  # SIGSYS


async def test_others_cannot_be_touched_and_rights_cannot_be_won(prison: Prison) -> None:
    known = {"server": prison.process.pid, "test": os.getpid()}
    for name, source in OTHERS.items():
        end = await prison.attempt(source, known)
        assert "failed" in end or end.get("limit") == "processes", (name, end)
    assert await prison.value("1 + 1") == 2


async def test_signals_to_its_own_group_reach_only_itself(prison: Prison) -> None:
    await prison.value("1")
    before = {process.pid for process in prison.processes()}
    for source in ("os.kill(0, signal.SIGKILL)", "os.killpg(os.getpgrp(), signal.SIGTERM)"):
        assert (await prison.attempt(source))["failed"] == "SystemExit"
    assert {process.pid for process in prison.processes()} == before


async def test_it_is_nobody_without_any_right(prison: Prison) -> None:
    assert await prison.value("[os.getuid(), os.geteuid(), os.getgid()]") == [65534] * 3
    # PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP, and capabilities one by one
    assert await prison.value("[libc.prctl(39, 0, 0, 0, 0), libc.prctl(21, 0, 0, 0, 0)]") == [1, 2]
    source = """
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, data) == 0
list(data)"""
    assert await prison.value(source) == [0] * 6


async def test_every_system_call_of_the_list_is_refused(prison: Prison) -> None:
    source = """
answers = {}
for name, number in calls.items():
    ctypes.set_errno(0)
    answers[name] = ctypes.get_errno() if libc.syscall(number, -1, 0, 0, 0, 0, 0) < 0 else 0
answers"""
    column = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
    calls = {name: numbers[column] for name, numbers in seccomp.DENIED.items() if numbers[column] >= 0}
    answers = await prison.value(source, {"calls": calls})
    assert {name for name, answer in answers.items() if answer != errno.EPERM} == set()
    assert len(answers) > 60


async def test_system_calls_of_another_kind_or_of_tomorrow_are_not_there(prison: Prison) -> None:
    for number in (seccomp.NEWEST + 1, 100_000, 0x40000000 | 41):
        end = await prison.attempt(f"libc.syscall({number}, 0, 0, 0) == -1 and ctypes.get_errno()")
        assert end["value"] == errno.ENOSYS


async def test_nothing_can_be_left_in_the_memory_of_the_kernel_for_the_next_call(prison: Prison) -> None:
    for source in (
        "syscall(29, 1234, 4096, 0o1666)"
        if os.uname().machine == "x86_64"
        else "syscall(194, 1234, 4096, 0o1666)",
        "from multiprocessing import shared_memory\nshared_memory.SharedMemory('left', create=True, size=1)",
        "os.memfd_create('left')",
    ):
        assert "failed" in await prison.attempt(source)


async def test_the_secret_of_another_is_not_found_by_looking_at_everything(prison: Prison) -> None:
    source = """
found = []
for place, folders, files in os.walk("/"):
    for file in files:
        if file.endswith(".secret"):
            found.append(os.path.join(place, file))
found"""
    assert secret_beside(prison.pack).exists()
    assert await prison.value(source, cpu_seconds=20) == []
