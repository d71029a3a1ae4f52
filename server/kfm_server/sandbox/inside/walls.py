"""Namespaces and a root of its own: what the confined process sees of the host."""

import errno
import os
import signal
from collections.abc import Sequence
from typing import Final

from kfm_server.sandbox.inside import kernel

NOBODY: Final = 65534
"""Who the confined code is, inside; outside it is the same where the server is root, and the server's user elsewhere."""
SCRATCH: Final = "/run/scratch"
_SPACES: Final = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
)  # fmt: skip
_CAP_KILL, _CAP_SYS_ADMIN = 1 << 5, 1 << 21
"""To end what a call leaves behind, and to give each call a scratch directory."""
_SYSTEM: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")
"""What shared libraries and time zones are read from."""


def go_in(read_only: Sequence[str]) -> None:
    """Returns in a new process, the first of its namespaces, which sees `read_only` and the system's libraries.

    This process waits for that one's end, then ends; told to terminate, it ends it first. Raises OSError where the
    host does not let it in, in either process.
    """
    root = os.geteuid() == 0
    _new_namespaces(root)
    first = os.fork()
    if first:
        _wait_for(first, root)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    _own_root([os.path.dirname(os.__file__), *read_only])
    kernel.set_host_name(b"sandbox")
    _become_nobody(root)


def _new_namespaces(root: bool) -> None:
    """Users of namespaces are mapped from outside: by a helper that stays there."""
    ready, go = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go)
        status = 0
        try:
            if os.read(ready, 1):
                _map_users(os.getppid(), root)
        except OSError as error:
            status = error.errno or errno.EIO
        os._exit(status)
    os.close(ready)
    try:
        try:
            kernel.unshare(_SPACES)
        except OSError as error:
            hint = "does this host allow user namespaces (user.max_user_namespaces, a container's seccomp profile)?"
            raise OSError(error.errno, f"{error.strerror}; {hint}") from None
        os.write(go, b"!")
    finally:
        os.close(go)
        _, status = os.waitpid(helper, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        raise OSError(code, f"the users of the namespace: {os.strerror(code) if code > 0 else code}")


def _map_users(pid: int, root: bool) -> None:
    place = f"/proc/{pid}"
    users, groups = (f"{NOBODY} {os.geteuid()} 1\n", f"{NOBODY} {os.getegid()} 1\n")
    if root:  # root sets up, and is nobody from then on
        users = groups = f"0 0 1\n{NOBODY} {NOBODY} 1\n"
    else:
        _write(f"{place}/setgroups", "deny")
    _write(f"{place}/uid_map", users)
    _write(f"{place}/gid_map", groups)


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _wait_for(first: int, root: bool) -> None:
    def end(*_: object) -> None:
        os.kill(first, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    _become_nobody(root)
    os.closerange(0, 1024)
    os.waitpid(first, 0)  # it is gone once all of its namespace are
    os._exit(0)


def _own_root(directories: Sequence[str]) -> None:
    """A root that holds nothing but these, all read only, an empty scratch directory, and /dev/null."""
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount(
        "tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,nr_inodes=4096,mode=755"
    )
    os.mkdir("/tmp/.host")
    kernel.pivot_root("/tmp", "/tmp/.host")
    os.chdir("/")
    for path in (*_SYSTEM, *directories):
        _show(path)
    kernel.restrict_mounts("/", kernel.MOUNT_ATTR_NOSUID)
    _bind("/dev/null")
    kernel.umount("/.host")
    os.rmdir("/.host")
    os.makedirs(SCRATCH)
    kernel.mount(
        "none",
        "/",
        flags=kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV,
    )


def _show(path: str) -> None:
    host = "/.host" + path
    if os.path.islink(host):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(os.readlink(host), path)
    elif path in _SYSTEM and not os.path.exists(host):
        return
    elif not os.path.exists(path):
        _bind(path)
        attributes = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
        kernel.restrict_mounts(path, attributes)


def _bind(path: str) -> None:
    host = "/.host" + path
    if os.path.isdir(host):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    kernel.mount(host, path, flags=kernel.MS_BIND | kernel.MS_REC)


def _become_nobody(root: bool) -> None:
    """Nobody from here on, with what rights over these namespaces the next steps need; gone with whoever waits for it."""
    if root:
        kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.set_capabilities(_CAP_KILL | _CAP_SYS_ADMIN)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # forgotten with a change of user
