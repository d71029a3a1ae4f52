"""Which user runs the embedded Postgres. It refuses root, so root lends it an unprivileged account."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LENT = ("postgres", "nobody")
_SHARED = Path("/var/lib/kfm")


@dataclass(frozen=True, slots=True)
class Account:
    """The user of the server, and `caller`, the one who runs us. The modes of parents are never touched."""

    uid: int
    gid: int
    name: str
    caller: str
    lent: bool

    def options(self) -> dict[str, Any]:
        """What subprocess needs to run something as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.lent else {}

    def reaches(self, path: Path) -> bool:
        """Whether the user may walk to this directory."""
        if not self.lent:
            return True
        done = subprocess.run(
            ["/bin/sh", "-c", 'cd "$1"', "sh", str(path)],
            check=False,
            capture_output=True,
            cwd="/",
            **self.options(),
        )
        return done.returncode == 0

    def own(self, path: Path) -> None:
        """Give it a file or directory."""
        if self.lent:
            os.chown(path, self.uid, self.gid)

    def make_directory(self, path: Path) -> None:
        """A directory for this user alone."""
        path.mkdir(mode=0o700, exist_ok=True)
        self.own(path)

    def write(self, path: Path, text: str) -> None:
        """Put a file in place, whole or not at all."""
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_text(text, "utf-8")
        fresh.chmod(0o600)
        self.own(fresh)
        fresh.replace(path)

    def elsewhere(self, home: Path) -> Path:
        """A new directory for a home that this user cannot reach; the caller remembers it. Raises OSError.

        A temporary home gets a temporary one, and those whose home is gone are removed.
        """
        temporary = Path(tempfile.gettempdir()).resolve()
        if not home.is_relative_to(temporary):
            return self._walkable(_SHARED / f"home-{secrets.token_hex(8)}")
        for old in temporary.glob("kfm-home-*/home"):
            if not Path(old.read_text("utf-8")).exists():
                shutil.rmtree(old.parent, ignore_errors=True)
        path = self._walkable(temporary / f"kfm-home-{secrets.token_hex(8)}")
        (path / "home").write_text(str(home), "utf-8")
        return path

    def _walkable(self, path: Path) -> Path:
        path.mkdir(mode=0o755, parents=True)
        path.chmod(0o755)
        return path

    def copy(self, source: Path, name: str) -> Path:
        """A copy of a tree that this user can read; made once."""
        target = _SHARED / name / source.name
        if not target.exists():
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fresh = target.with_name(f"{target.name}.{os.getpid()}")
            shutil.copytree(source, fresh, symlinks=True)
            try:
                fresh.rename(target)
            except OSError:
                shutil.rmtree(fresh)
        return target


def choose_account() -> Account:
    """Ourselves, or for root one of the unprivileged users that every system has. Raises OSError."""
    uid = os.geteuid()
    try:
        caller = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise OSError(
            f"user {uid} has no name on this system, and Postgres asks for one: add it to /etc/passwd,"
            " or set KFM_DATABASE_URL to a Postgres of your own"
        ) from None
    if uid != 0:
        return Account(uid, os.getegid(), caller, caller, lent=False)
    for name in _LENT:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(user.pw_uid, user.pw_gid, name, caller, lent=True)
    raise OSError(f"Postgres does not run as root, and there is no user {' or '.join(_LENT)} to run it")
