"""Who signed it: an Ed25519 key in a file that only its owner reads (RFC 8032)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from safety.errors import IdentityError
from safety.private_file import read_private, write_new

KEY_FILE, PUBLIC_FILE = "governor.key", "governor.pub"


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
        if not path.exists():
            write_new(path, _new_key())
        identity = Identity(_read(path))
        if not (folder / PUBLIC_FILE).exists():
            write_new(folder / PUBLIC_FILE, identity.public.encode(), mode=0o644)
        return identity
    except OSError as error:
        raise IdentityError(f"{path}: cannot be used: {error.strerror}") from None


def identity_of(path: Path) -> Identity:
    """The key in a file.

    Raises:
        IdentityError: it isn't there, others may read it, or it is no such key.
    """
    try:
        return Identity(_read(path))
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise IdentityError(f"{str(path)!a}: cannot be read: {getattr(error, 'strerror', error)}") from None


def make_identity(path: Path) -> Identity:
    """A new key in a new file that its owner alone reads.

    Raises:
        IdentityError: something is there already, or nothing can be written there.
    """
    try:
        if os.path.lexists(path):
            raise IdentityError(f"{path}: there already; a key is never written over")
        write_new(path, _new_key())
    except (OSError, ValueError) as error:
        raise IdentityError(
            f"{str(path)!a}: cannot be written: {getattr(error, 'strerror', error)}"
        ) from None
    return identity_of(path)


def public_in(folder: Path) -> str | None:
    """The public half of the key in a folder, which everybody may read; None where there is none.

    Raises:
        IdentityError: it is no such key.
    """
    path = folder / PUBLIC_FILE
    try:
        public = path.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError(f"{path}: cannot be read: {error}") from None
    try:
        return public_key(public)
    except ValueError as error:
        raise IdentityError(f"{path}: {error}") from None


def public_key(value: object) -> str:
    """A public key as people write it.

    Raises:
        ValueError: what was expected.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("expected the 64 hexadecimal digits of a public key")
    return value


def _new_key() -> bytes:
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Ed25519PrivateKey.generate().private_bytes(*encoding)


def _read(path: Path) -> Ed25519PrivateKey:
    content = read_private(path)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
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
