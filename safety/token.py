"""Who may throw the kill switch from afar: a token in a file that only its owner reads."""

from __future__ import annotations

import hmac
import re
import secrets
from pathlib import Path

from safety.errors import IdentityError
from safety.private_file import read_private, write_new

TOKEN_FILE = "console.token"
_SHAPE = re.compile(rb"[A-Za-z0-9_-]{32,512}")


def token_in(folder: Path) -> str:
    """The token that lies in a folder; made there where there is none.

    Raises:
        IdentityError: others may read it, or it is no such token.
    """
    path = folder / TOKEN_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_new(path, secrets.token_urlsafe(32).encode())
        found = read_private(path).strip()
    except OSError as error:
        raise IdentityError(f"{path}: cannot be used: {error.strerror}") from None
    if not _SHAPE.fullmatch(found):
        raise IdentityError(f"{path}: expected a token of 32 to 512 letters, digits, - or _")
    return found.decode()


def is_bearer(authorization: str, token: str) -> bool:
    """Whether an `Authorization` header shows the token; takes as long for whatever it shows."""
    scheme, _, shown = authorization.partition(" ")
    same = hmac.compare_digest(shown.strip().encode("utf-8", "replace"), token.encode())
    return same and scheme.lower() == "bearer"
