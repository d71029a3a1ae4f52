"""A filter of system calls: what code in the sandbox has no use for is not there."""

import ctypes
import errno
import os
import struct
from typing import Final

from kfm_server.sandbox.inside.kernel import PR_SET_SECCOMP, prctl

_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's name of an architecture, and the column of its numbers in DENIED."""
NEWEST: Final = 467
"""The last system call that this list knows: later ones are not there."""
DENIED: Final[dict[str, tuple[int, int]]] = {
    # memory and state of other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "setpriority": (141, 140), "ioprio_set": (251, 30),
    # the view of the system
    "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "statmount": (457, 457), "listmount": (458, 458), "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "mknod": (133, -1), "mknodat": (259, 33),
    "sethostname": (170, 161), "setdomainname": (171, 162),
    # the network, and what outlives a call
    "socket": (41, 198), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # other programs
    "execve": (59, 221), "execveat": (322, 281),
    # wide doors into the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "personality": (135, 92), "modify_ldt": (154, -1), "iopl": (172, -1),
    "ioperm": (173, -1), "uselib": (134, -1), "lookup_dcookie": (212, 18), "vhangup": (153, 58),
    # memory that no limit counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "setsockopt": (54, 208),
    # the machine
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "syslog": (103, 116), "quotactl": (179, 60), "quotactl_fd": (443, 443),
}  # fmt: skip
_MOUNTS: Final = {"mount": (165, 40), "umount2": (166, 39)}
_CLONE, _CLONE3, _PRLIMIT = (56, 220), 435, (302, 261)
_NAMESPACES: Final = 0x7E020080  # every CLONE_NEW*

_LOAD, _EQUAL, _ABOVE, _ANY_OF, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16


def program() -> bytes:
    """The filter. Raises OSError on a machine whose system calls are not known here.

    It lets `mount` and `fork` pass: the first process needs them, and a call has neither the right to the one nor,
    by its limit of processes, more of the other than it was granted.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"the system calls of {machine} are not known")
    name, column = _ARCHITECTURES[machine]
    code = [_step(_LOAD, _ARCHITECTURE), *_unless(name, _KILL), _step(_LOAD, _NUMBER)]
    code += [_step(_ABOVE, NEWEST, 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    for number in (numbers[column] for numbers in DENIED.values() if numbers[column] >= 0):
        code += _refused(number, errno.EPERM)
    code += _refused(
        _CLONE3, errno.ENOSYS
    )  # its flags cannot be read from here: the C library falls back to clone
    own = [_step(_LOAD, _ARGUMENT), *_unless(0, _ERRNO | errno.EPERM), _step(_RETURN, _ALLOW)]
    code += [_step(_EQUAL, _PRLIMIT[column], 0, len(own)), *own]  # of limits, only one's own
    code += [_step(_EQUAL, _CLONE[column], 0, 3), _step(_LOAD, _ARGUMENT)]
    code += [_step(_ANY_OF, _NAMESPACES, 0, 1), _step(_RETURN, _ERRNO | errno.EPERM)]
    return b"".join((*code, _step(_RETURN, _ALLOW)))


def install(instructions: bytes) -> None:
    """Put this process and its children under the filter, for good; it must have no_new_privs. Raises OSError."""
    kept = ctypes.create_string_buffer(instructions, len(instructions))
    head = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(kept)), 16
    )
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(head))


def deny(*names: str) -> bytes:
    """A filter that refuses only these, as a host would that has them forbidden. KeyError for one that is not known."""
    name, column = _ARCHITECTURES[os.uname().machine]
    code = [_step(_LOAD, _ARCHITECTURE), *_unless(name, _KILL), _step(_LOAD, _NUMBER)]
    for denied in names:
        code += _refused((DENIED | _MOUNTS)[denied][column], errno.EPERM)
    return b"".join((*code, _step(_RETURN, _ALLOW)))


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _refused(number: int, error: int) -> list[bytes]:
    return [_step(_EQUAL, number, 0, 1), _step(_RETURN, _ERRNO | error)]


def _unless(value: int, action: int) -> list[bytes]:
    return [_step(_EQUAL, value, 1, 0), _step(_RETURN, action)]
