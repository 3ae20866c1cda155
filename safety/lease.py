"""What a lease is: the right to compute, for a while, up to a claim."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from safety.claim import Claim

OPEN_STATES = ("reserved", "active", "revoked")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A trial's wish to run.

    Attributes:
        key: idempotency key; the same key with another digest is an error.
        digest: digest of exactly what would be run.
        sweep: the sweep that it belongs to, whose limits bind it.
        claim: what it would take.
    """

    key: str
    digest: str
    sweep: str
    claim: Claim


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A row of the ledger."""

    id: int
    key: str
    digest: str
    sweep: str
    claim: Claim
    state: str
    fence: int
    holder: str
    deadline_ms: int
    began_ms: int
    boot: str
    rule: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """An active lease, as its worker holds it.

    Attributes:
        lease: its number.
        fence: to be shown with every renewal and at the end.
        ttl_ms: how long the worker may compute, counted from before it asked.
        claim: what was reserved.
    """

    lease: int
    fence: int
    ttl_ms: int
    claim: Claim


def request_digest(config: Mapping[str, object]) -> str:
    """SHA-256 of a trial's configuration in canonical JSON: what was reserved is what may run.

    Raises:
        ValueError: the configuration holds something that JSON can't tell.
    """
    try:
        text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except TypeError as error:
        raise ValueError(f"configuration: expected plain JSON values ({error})") from None
    return hashlib.sha256(text.encode()).hexdigest()
