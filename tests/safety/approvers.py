"""People who approve, with keys of their own."""

import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safety import Approval, Ledger
from safety.approval import Answer, decide
from safety.identity import Identity


def identity(name: str) -> Identity:
    """The key of a person, the same each time."""
    return Identity(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def approval(*names: str, **more: Any) -> Approval:
    """A section of the limits that names approvers."""
    return Approval(approvers={name: identity(name).public for name in names}, **more)


def answer(ledger: Ledger, request: str, name: str, said: Answer = "approve", reason: str = "seen") -> None:
    """A person decides of a request."""
    ledger.decide(decide(request, said, name, reason, identity(name)))
