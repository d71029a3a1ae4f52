"""Says why a database given by its URL cannot be used: which, and what would do; never with what is secret in the URL."""

import re
from urllib.parse import parse_qs

import asyncpg

_URL = re.compile(
    r"postgres(?:ql)?://(?:[^@/?#]*@)?(?P<host>[^@/?#]*)(?P<name>/[^@?#]*)?(?:\?(?P<query>[^@#]*))?"
)
_REFUSED = (
    asyncpg.InterfaceError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class DatabaseRefused(Exception):
    """The URL has to change: it is none, or the database server does not take what it says."""


class DatabaseAway(OSError):
    """Nobody answers there now."""


def place_of(url: str) -> str:
    """Host, port and database of a URL; empty if it cannot be told for sure which part of it is a password."""
    found = _URL.fullmatch(url)
    if found is None:
        return ""
    query = parse_qs(found["query"] or "")
    return (found["host"] or ",".join(query.get("host", ()))) + (found["name"] or "")


def why_not(
    url: str, error: BaseException, setting: str = "KFM_DATABASE_URL"
) -> DatabaseRefused | DatabaseAway | None:
    """What a first use of the database came to, as one line that names the setting, as the caller calls it, and place; None if it is not about the URL."""
    place = f" ({place})" if (place := place_of(url)) else ""
    if isinstance(error, _REFUSED):
        return DatabaseRefused(f"{setting}{place}: {error}")
    if isinstance(error, ValueError):  # its text quotes the part that was not understood
        return DatabaseRefused(
            f"{setting}{place}: not of the form postgresql://user:password@host:port/database"
        )
    if isinstance(error, OSError | asyncpg.PostgresError):
        return DatabaseAway(f"{setting}{place}: no use can be made of it: {error or 'it does not answer'}")
    return None
