"""Who signed a pack: exactly its files, with a key that is known."""

import json
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from kfm_server.personalities.pack import Pack, check
from kfm_server.personalities.trust import (
    Trust,
    TrustError,
    known_keys,
    new_key,
    private_key,
    sign,
    signature_of,
)

pytestmark = pytest.mark.requirement("K4")
_, PUBLIC = new_key()
FILES = {"manifest.yaml": b"name: a\nversion: 1.0.0\ndescription: d\n", "prompts/p.md": b"Be brief."}


def keys_of(directory: Path, **named: bytes) -> Trust:
    for name, pem in named.items():
        (directory / f"{name}.pem").write_bytes(pem)
    return Trust(directory, "signed")


def signed(private: bytes, files: dict[str, bytes] = FILES) -> Pack:
    return check({**files, "signature.json": sign(check(files), private_key(private))})


def test_a_pack_is_of_the_known_key_that_signed_its_files(tmp_path: Path) -> None:
    (ours, our_public), (theirs, their_public) = new_key(), new_key()
    trust = keys_of(tmp_path, us=our_public, them=their_public)
    assert trust.signer(signed(ours)) == "us"
    assert trust.signer(signed(theirs)) == "them"
    assert trust.refuses(signed(ours)) == ""
    stranger, _ = new_key()
    assert trust.signer(signed(stranger)) == ""
    assert trust.why_not(signed(stranger)) == "is of no known key; known keys: them, us"
    assert trust.why_not(check(FILES)) == "is missing: nobody signed this; known keys: them, us"
    changed = check({**signed(ours).files, "prompts/p.md": b"Be rude."})
    assert trust.why_not(changed) == "is of other files: something was changed since; known keys: them, us"
    assert trust.refuses(changed) == f"{trust.why_not(changed)}; only signed packs are taken here"


def test_a_signature_holds_for_no_other_files_and_no_other_names(tmp_path: Path) -> None:
    private, public = new_key()
    trust = keys_of(tmp_path, us=public)
    signature = {"signature.json": signed(private).files["signature.json"]}
    for other in (
        {**FILES, "prompts/p.md": b"Be rude."},
        {**FILES, "prompts/q.md": b""},
        {"manifest.yaml": FILES["manifest.yaml"], "prompts/q.md": FILES["prompts/p.md"]},
    ):
        assert trust.signer(check({**other, **signature})) == ""
    lying = json.loads(signature["signature.json"]) | {"digest": check({**FILES, "x": b""}).digest}
    changed = check({**FILES, "x": b"", "signature.json": json.dumps(lying).encode()})
    assert trust.signer(changed) == "", "what the file says of the digest counts for nothing"


def test_who_asks_for_no_signature_takes_all_and_still_tells_who_signed(tmp_path: Path) -> None:
    private, public = new_key()
    keys_of(tmp_path, us=public)
    trust = Trust(tmp_path)
    assert trust.refuses(check(FILES)) == ""
    assert trust.signer(signed(private)) == "us"


@given(
    st.binary(max_size=80)
    | st.recursive(st.none() | st.text(max_size=9) | st.integers(), lambda x: st.dictionaries(st.just("ed25519"), x))
    .map(json.dumps)
    .map(str.encode)
    | st.just(b"[" * 100_000)
    | st.just(b'{"ed25519": "AAAA"}')
)  # fmt: skip
def test_any_bytes_as_a_signature_are_of_nobody(content: bytes) -> None:
    pack = check({**FILES, "signature.json": content})
    with tempfile.TemporaryDirectory() as directory:
        assert keys_of(Path(directory), us=PUBLIC).signer(pack) == ""
    assert signature_of(pack) in (None, b"\0\0\0") or content.startswith(b'{"ed25519": "')


def test_keys_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    private, _ = new_key()
    assert known_keys(tmp_path / "nowhere") == {}
    (tmp_path / "a.pem").write_text("no key")
    with pytest.raises(TrustError, match=r"a\.pem is no public key"):
        known_keys(tmp_path)
    (tmp_path / "a.pem").write_bytes(private)
    with pytest.raises(TrustError, match=r"a\.pem is no public key"):
        known_keys(tmp_path)
    other = ec.generate_private_key(ec.SECP256R1())
    public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "a.pem").write_bytes(public)
    with pytest.raises(TrustError, match=r"a\.pem is no Ed25519 public key"):
        known_keys(tmp_path)
    for pem, why in (
        (b"no key", "is no private key"),
        (
            other.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            "is no Ed25519 key",
        ),
    ):
        with pytest.raises(TrustError, match=why):
            private_key(pem)
