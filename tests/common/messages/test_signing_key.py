from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from common.messages.signing_key import (
    fingerprint,
    load_private,
    new_private_key,
    private_text,
    public_pem,
    public_text,
    sign,
    verify,
)
from common.platform.errors import TrustRefused
from tests.peers import program


@pytest.mark.processes
def test_ssh_keygen_shows_the_same_fingerprint_and_public_key(tmp_path: Path) -> None:
    key = new_private_key()
    private, public = tmp_path / "key", tmp_path / "key.pub"
    private.touch(mode=0o600)
    private.write_text(private_text(key), encoding="ascii")
    public.write_text(public_text(key) + "\n", encoding="ascii")
    shown = subprocess.run(
        [program("ssh-keygen"), "-l", "-f", str(public)], capture_output=True, text=True, check=True
    )
    assert fingerprint(public_text(key)) in shown.stdout.split()
    derived = subprocess.run(
        [program("ssh-keygen"), "-y", "-f", str(private)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert derived.stdout.split()[:2] == public_text(key).split()


def test_a_saved_key_is_read_back(tmp_path: Path) -> None:
    key = new_private_key()
    (tmp_path / "key").write_text(private_text(key), encoding="ascii")
    assert public_text(load_private(tmp_path / "key")) == public_text(key)


def test_only_the_owner_signs_and_only_what_was_signed_verifies() -> None:
    key, other = new_private_key(), new_private_key()
    signature = sign(key, b"content")
    assert verify(public_text(key), b"content", signature)
    assert not verify(public_text(key), b"other content", signature)
    assert not verify(public_text(other), b"content", signature)
    assert not verify(public_text(key), b"content", b"")


def test_flowers_form_of_a_key_is_the_same_key() -> None:
    key = new_private_key()
    read = serialization.load_pem_public_key(public_pem(public_text(key)))
    assert isinstance(read, ec.EllipticCurvePublicKey)
    assert read.public_numbers() == key.public_key().public_numbers()


def test_a_private_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    (tmp_path / "key").write_bytes(other)
    with pytest.raises(TrustRefused, match="another kind of key"):
        load_private(tmp_path / "key")
    (tmp_path / "key").write_text("-----BEGIN", encoding="ascii")
    with pytest.raises(TrustRefused, match="no private key"):
        load_private(tmp_path / "key")
    with pytest.raises(TrustRefused, match="No such file"):
        load_private(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:0],
        lambda text: text + " root@here",
        lambda text: text + "\n",
        lambda text: text.replace(" ", "  "),
        lambda text: text[:-8],
        lambda text: text.replace("nistp384", "nistp256"),
        lambda text: text + "A" * 4000,
    ],
)
def test_one_key_has_one_text(change: object) -> None:
    assert callable(change)
    with pytest.raises(TrustRefused, match="no public key"):
        fingerprint(change(public_text(new_private_key())))
