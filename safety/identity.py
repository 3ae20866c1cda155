"""Who signed it: an Ed25519 key in a file that only its owner reads (RFC 8032)."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safety.errors import IdentityError

KEY_FILE = "governor.key"
# in hexadecimal
PUBLIC_LENGTH = 64


class Identity:
    """A private key; what it signs, its public half proves.

    Args:
        key: of 32 bytes.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public(self) -> str:
        """The public half, 64 hexadecimal digits."""
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        return self._key.public_key().public_bytes(*raw).hex()

    def sign(self, message: bytes) -> bytes:
        """Signature of a message, 64 bytes."""
        return self._key.sign(message)


def identity_in(folder: Path) -> Identity:
    """The key that lies in a folder; made there where there is none.

    Raises:
        IdentityError: others may read it, or it is no such key.
    """
    path = folder / KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make(path)
        return Identity(_read(path))
    except OSError as error:
        raise IdentityError(f"{path}: cannot be used: {error.strerror}") from None


def _make(path: Path) -> None:
    """Write a new key where there is none; of several makers at once, one wins."""
    if path.exists():
        return
    number, own = tempfile.mkstemp(dir=path.parent)  # its owner's alone
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    with open(number, "wb") as file:
        file.write(Ed25519PrivateKey.generate().private_bytes(*encoding))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(own, path)
    except FileExistsError:  # another one was faster; its key stays
        pass
    finally:
        os.unlink(own)


def _read(path: Path) -> Ed25519PrivateKey:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise IdentityError(f"{path}: others may read it (mode {mode:o}); expected mode 600")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path}: expected an Ed25519 key in PEM")
    return key


def is_signed(public: str, signature: bytes, message: bytes) -> bool:
    """Whether the holder of a public key's other half signed exactly this message."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
