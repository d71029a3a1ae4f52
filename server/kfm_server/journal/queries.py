"""The named statements of the journal: one file each in `sql/`."""

from functools import cache
from importlib.resources import files


@cache
def query(name: str) -> str:
    """The text of `sql/<name>.sql`. Raises FileNotFoundError."""
    return files("kfm_server.journal").joinpath("sql", f"{name}.sql").read_text("utf-8")
