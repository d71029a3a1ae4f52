"""Landlock: what the mounts leave is read only, but for the scratch directory; nothing is executed, nobody signalled."""

import os
from typing import Final

from kfm_server.sandbox.inside.kernel import syscall

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_PATH_BENEATH: Final = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_MAKE_SYM, _REFER, _TRUNCATE = 1 << 12, 1 << 13, 1 << 14
_RIGHTS: Final = (0, 13, 14, 15, 15, 16)
"""How many rights on files each version of the interface knows; later ones know as many as the last."""
_SCRATCH: Final = (
    _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE
    | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
)  # fmt: skip


def version() -> int:
    """The kernel's version of the interface. Raises OSError where it has none."""
    return syscall(_CREATE, "landlock", None, 0, 1)


def ruleset(writable: str) -> int:
    """A file descriptor of the rules, for `restrict`; `writable` is what can be written below. Raises OSError.

    What is mounted right on a directory with a rule is not under the rule; below the directory it is.
    """
    known = version()
    files = (1 << _RIGHTS[min(known, len(_RIGHTS) - 1)]) - 1
    network = 0b11 if known >= 4 else 0  # TCP: bind, connect
    scoped = 0b11 if known >= 6 else 0  # abstract Unix sockets, signals
    attr = b"".join(n.to_bytes(8, "little") for n in (files, network, scoped))
    size = 24 if known >= 6 else 16 if known >= 4 else 8
    rules = syscall(_CREATE, "landlock_create_ruleset", attr[:size], size, 0)
    for path, allowed in (("/", _READ_FILE | _READ_DIR), (writable, _SCRATCH), ("/dev/null", _WRITE_FILE)):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = (allowed & files).to_bytes(8, "little") + place.to_bytes(4, "little")
        syscall(_ADD, "landlock_add_rule", rules, _PATH_BENEATH, rule, 0)
        os.close(place)
    return rules


def restrict(rules: int) -> None:
    """Put this process and its children under the rules, for good; it must have no_new_privs. Raises OSError."""
    syscall(_RESTRICT, "landlock_restrict_self", rules, 0)
