"""Where a door may listen."""

import hmac
import ipaddress


class BindRefused(ValueError):
    """The address is not one that a door may listen on; the text says why."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; brackets around an IPv6 host are taken off. BindRefused if it is neither."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise BindRefused(f"{address!r} is not host:port")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_bind(address: str, token: str) -> None:
    """Refuse, with BindRefused, an address beyond loopback when no token guards the door."""
    host, _ = split_address(address)
    if not token and not is_loopback(host):
        raise BindRefused(
            f"{address} can be reached from other machines and no token is set: set KFM_TOKEN, or bind 127.0.0.1"
        )


def reachable(address: str) -> str:
    """The address where others reach a door that listens at `address`; empty if that cannot be known, as for 0.0.0.0."""
    host, _ = split_address(address)
    return "" if host in ("0.0.0.0", "::") else address


def is_loopback(host: str) -> bool:
    """Whether a host is this machine only. Names other than localhost count as outside."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_matches(header: str | bytes, token: str) -> bool:
    """Whether an Authorization header is `Bearer` and the token; takes the same time for any header of one length."""
    given = header if isinstance(header, bytes) else header.encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given, b"Bearer " + token.encode())
