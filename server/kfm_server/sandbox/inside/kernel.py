"""Calls of the Linux kernel that the standard library lacks."""

import ctypes
import os
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH: Final = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_SECCOMP: Final = 22
PR_SET_NO_NEW_PRIVS: Final = 38

_MOUNT_SETATTR: Final = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def syscall(number: int, what: str, *arguments: int | bytes | None) -> int:
    """A system call by its number; `what` names it in the OSError."""
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *given), what)


def unshare(flags: int) -> None:
    """New namespaces for this process. Raises OSError."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount. Raises OSError."""
    given = (
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _checked(_libc.mount(*given), f"mount {target}")


def umount(target: str) -> None:
    """Take a mount away, now for names and later for what is still open. Raises OSError."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """`new` becomes the root, and the old root is seen at `old`. Raises OSError."""
    _checked(_libc.pivot_root(new.encode(), old.encode()), "pivot_root")


def restrict_mounts(path: str, attributes: int) -> None:
    """Give attributes to the mount at `path` and all below it (Linux 5.12). Raises OSError."""
    attr = b"".join(n.to_bytes(8, "little") for n in (attributes, 0, 0, 0))
    syscall(_MOUNT_SETATTR, "mount_setattr", _AT_FDCWD, path.encode(), _AT_RECURSIVE, attr, len(attr))


def set_host_name(name: bytes) -> None:
    """The name of the host in this namespace. Raises OSError."""
    _checked(_libc.sethostname(name, len(name)), "sethostname")


def prctl(option: int, value: int, argument: int = 0) -> None:
    """Change a property of this process. Raises OSError."""
    given = (ctypes.c_ulong(n) for n in (value, argument, 0, 0))
    _checked(_libc.prctl(ctypes.c_int(option), *given), f"prctl {option}")


def set_capabilities(mask: int) -> None:
    """These, effective and permitted, and none inheritable. Raises OSError."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _checked(_libc.capset(header, data), "capset")
