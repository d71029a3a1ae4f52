"""Who signed a pack, and whether that is enough: Ed25519 over the digest of its files (RFC 8032)."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from kfm_server.personalities.files import SIGNATURE
from kfm_server.personalities.pack import Pack

Policy = Literal["any", "signed"]
"""any: whoever may write into the packs' directory; signed: only packs that a known key has signed."""
_CONTEXT = b"kfm personality pack v1\0"


class TrustError(Exception):
    """A key that cannot be used; the message says which and why."""


class Trust:
    """The keys that are known, and what is asked of packs."""

    def __init__(self, directory: Path, policy: Policy = "any") -> None:
        """`directory`: of `known_keys`. Raises TrustError."""
        self.directory = directory
        self._policy = policy
        self._keys = known_keys(directory)

    def read_again(self) -> None:
        """Go by the keys that are there now. Raises TrustError; then those before stay."""
        self._keys = known_keys(self.directory)

    def signer(self, pack: Pack) -> str:
        """The name of the known key that signed exactly these files; empty for none."""
        signature = signature_of(pack)
        if signature is None:
            return ""
        for name, key in self._keys.items():
            try:
                key.verify(signature, _CONTEXT + pack.digest.encode())
            except InvalidSignature:
                continue
            return name
        return ""

    def refuses(self, pack: Pack) -> str:
        """Why the policy does not take it; empty if it does."""
        why = "" if self._policy == "any" else self.why_not(pack)
        return f"{why}; only signed packs are taken here" if why else ""

    def why_not(self, pack: Pack) -> str:
        """Why nobody that is known signed exactly these files; empty if somebody did."""
        if self.signer(pack):
            return ""
        known = ", ".join(sorted(self._keys)) or "none"
        if SIGNATURE not in pack.files:
            return f"is missing: nobody signed this; known keys: {known}"
        if _said(pack).get("digest") != pack.digest:
            return f"is of other files: something was changed since; known keys: {known}"
        return f"is of no known key; known keys: {known}"


def signature_of(pack: Pack) -> bytes | None:
    """The signature that stands in the pack; None if none does that can be read."""
    try:
        return base64.b64decode(_said(pack)["ed25519"], validate=True)
    except (KeyError, ValueError, TypeError):
        return None


def _said(pack: Pack) -> Mapping[str, Any]:
    try:
        found = json.loads(pack.files[SIGNATURE])
    except (KeyError, ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def sign(pack: Pack, key: Ed25519PrivateKey) -> bytes:
    """The contents of signature.json for these files."""
    signature = base64.b64encode(key.sign(_CONTEXT + pack.digest.encode())).decode()
    return (json.dumps({"ed25519": signature, "digest": pack.digest}, indent=2) + "\n").encode()


def new_key() -> tuple[bytes, bytes]:
    """A new pair, private and public, as PEM."""
    private = Ed25519PrivateKey.generate()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """Read a private key. Raises TrustError."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise TrustError(f"is no private key in PEM without a password: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise TrustError("is no Ed25519 key")
    return key


def known_keys(directory: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys in `*.pem` of a directory, by file name without `.pub.pem`. Raises TrustError."""
    found: dict[str, Ed25519PublicKey] = {}
    for file in sorted(directory.glob("*.pem")) if directory.is_dir() else ():
        try:
            key = load_pem_public_key(file.read_bytes())
        except (ValueError, OSError) as error:
            raise TrustError(f"{file.name} is no public key: {error}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise TrustError(f"{file.name} is no Ed25519 public key")
        found[file.stem.removesuffix(".pub")] = key
    return found
