"""Versions of the cluster's limits in the ledger: each hashed and signed, looser by an approval alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import rfc8785
import sqlalchemy as sa

from safety import audit, schema
from safety.approval import Act
from safety.clock import Clock
from safety.errors import LedgerError, LooserLimits
from safety.identity import Identity, is_signed
from safety.latch import readable
from safety.limits import Limits
from safety.tightening import changed_fields, fields_of, looser_fields

_table = schema.limit_versions


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """Limits that bind every sweep of the ledger from then on.

    Attributes:
        number: from 1.
        limits: in canonical JSON.
        digest: of the limits.
        previous: digest of the version before it; "" for none.
        by: who asked for it.
        at_ms: Unix time in milliseconds.
        public: key of the signer, 64 hexadecimal digits; "" where nobody signed.
        signature: of `message`, hexadecimal.
    """

    number: int
    limits: str
    digest: str
    previous: str
    by: str
    at_ms: int
    public: str = ""
    signature: str = ""

    @property
    def parsed(self) -> Limits:
        """The limits."""
        return Limits.model_validate_json(self.limits)

    @property
    def message(self) -> bytes:
        """What is signed: canonical JSON (RFC 8785); the digest stands for the limits."""
        names = ("number", "digest", "previous", "by", "at_ms", "public")
        return rfc8785.dumps({name: getattr(self, name) for name in names})

    @property
    def is_authentic(self) -> bool:
        """Whether the limits are those of the digest, and the signature its signer's."""
        hashed = hashlib.sha256(self.limits.encode()).hexdigest()
        return hashed == self.digest and is_signed(self.public, _bytes(self.signature), self.message)


def _bytes(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


def all_of(connection: sa.Connection) -> list[Version]:
    """Every version, in order."""
    return [
        Version(**row) for row in connection.execute(sa.select(_table).order_by(_table.c.number)).mappings()
    ]


def newest(connection: sa.Connection) -> Version | None:
    """The version in force; None where there is none."""
    row = connection.execute(sa.select(_table).order_by(_table.c.number.desc()).limit(1)).mappings().first()
    return None if row is None else Version(**row)


def add(
    connection: sa.Connection,
    clock: Clock,
    limits: Limits,
    by: str,
    identity: Identity | None,
    request: str = "",
) -> Version:
    """Write the next version; the same limits again are the version that is there.

    Args:
        connection: of the caller's transaction.
        clock: of this host.
        limits: of the version.
        by: who asks for it.
        identity: signs it.
        request: whose approval lets it be looser; "" for none.

    Raises:
        LooserLimits: a field is looser than the version in force.
    """
    known = all_of(connection)
    last = known[-1] if known else None
    if last and last.digest == limits.digest:
        return last
    before = last.parsed if last else None
    if before and not request:
        _require_tighter(before, limits)
    version = Version(
        number=len(known) + 1,
        limits=limits.canonical,
        digest=limits.digest,
        previous=last.digest if last else "",
        by=readable(by),
        at_ms=clock.wall_ms(),
        public=identity.public if identity else "",
    )
    signature = identity.sign(version.message).hex() if identity else ""
    _write(connection, version, signature)
    changed = list(changed_fields(before, limits)) if before else list(fields_of(limits))
    detail = {"version": version.number, "policy": version.digest, "by": version.by, "fields": changed}
    if request:
        detail |= {"request": request, "looser": list(looser_fields(before, limits)) if before else []}
    kind = "loosen" if request else "tighten"
    audit.note(connection, clock, kind, detail={**detail, "signature": signature})
    return all_of(connection)[-1]


def loosening(last: Version | None, limits: Limits) -> Act:
    """What it takes an approval for to put these limits in the place of a version.

    Raises:
        LooserLimits: there is no version, or it names nobody who could approve.
        LedgerError: nothing in them is looser.
    """
    if last is None:
        raise LooserLimits("no version of the limits binds every sweep; expected one that names approvers")
    if not last.parsed.approval.is_named:
        raise LooserLimits(
            f"version {last.number} of the limits names no approvers, so that nobody loosens it"
        )
    if not looser_fields(last.parsed, limits):
        told = "`rsi-ray limits tighten` takes them without an approval"
        raise LedgerError(f"nothing in these limits is looser than version {last.number}; {told}")
    return Act(
        kind="loosen",
        subject=limits.digest,
        parent=last.digest,
        generation=last.number + 1,
        policy=last.digest,
    )


def _write(connection: sa.Connection, version: Version, signature: str) -> None:
    names = ("number", "limits", "digest", "previous", "by", "at_ms", "public")
    values = {name: getattr(version, name) for name in names}
    connection.execute(_table.insert().values(**values, signature=signature))


def _require_tighter(before: Limits, limits: Limits) -> None:
    looser = looser_fields(before, limits)
    if looser:
        name = looser[0]
        raise LooserLimits(
            f"{name}: {_value(limits, name)} is asked for and {_value(before, name)} is in force; loosening "
            "takes an approval: ask for it with `rsi-ray limits loosen`"
        )


def _value(limits: Limits, name: str) -> object:
    known = fields_of(limits)
    if name == "approval.approvers":
        return ", ".join(f"{who} {key[:8]}" for who, key in sorted(limits.approval.keys.items())) or "nobody"
    if name in known:
        return "no limit" if known[name] is None else known[name]
    section, _, domain = name.rpartition("max_performance.")
    return known[f"{section}max_performance"].get(domain, "no ceiling")
