"""Signed ends of the audit's chain, kept in a place of their own: a tail that is cut shows against them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rfc8785

from safety import audit
from safety.audit import Head
from safety.errors import CheckpointError
from safety.identity import Identity, is_signed

# what is signed says what it is: the same key signs other messages too
_MEANING = "rsi-ray audit checkpoint"
# integers that canonical JSON can tell (RFC 8785)
_MOST = 2**53 - 1
# rows that are signed as soon as they are written
SIGNED = (
    "settle",
    "forfeit",
    "loosen",
    "approve",
    "reject",
    "promote",
    "kill",
    "unkill",
    "drill",
    "incident",
    "freeze",
    "close_sweep",
    "shut_down",
    "rollback",
    "acknowledge",
    "release",
)
# rule of the incident that tells of a checkpoint that could not be written
RULE = "checkpoints"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The audit as it stood: whoever holds the key says that its row `seq` had this hash.

    Attributes:
        seq: number of the last row then.
        hash: its hash.
        at_ms: Unix time in milliseconds.
        ledger: hash of the ledger's first row.
        public: public key of who signed, in hexadecimal.
        signature: over the other fields, in hexadecimal.
    """

    seq: int
    hash: str
    at_ms: int
    ledger: str
    public: str
    signature: str

    def signed_by(self, public: str) -> bool:
        """Whether the holder of this key signed exactly this."""
        fields = asdict(self)
        try:
            signature, message = bytes.fromhex(fields.pop("signature")), _message(fields)
        except ValueError:  # no hexadecimal, or text that isn't Unicode
            return False
        return is_signed(public, signature, message)


def _message(fields: Mapping[str, Any]) -> bytes:
    return rfc8785.dumps({**fields, "meaning": _MEANING})


def sign(identity: Identity, head: Head, at_ms: int) -> Checkpoint:
    """Say under a key that the audit stands at this row now."""
    fields: dict[str, Any] = {**asdict(head), "at_ms": at_ms, "public": identity.public}
    return Checkpoint(**fields, signature=identity.sign(_message(fields)).hex())


# --- where they are kept


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What a place holds.

    Attributes:
        checkpoints: in the order in which they were written.
        unreadable: numbers of the lines that are none: torn by a crash, or changed.
    """

    checkpoints: tuple[Checkpoint, ...]
    unreadable: tuple[int, ...]

    @property
    def newest(self) -> Checkpoint | None:
        """The one that knows most rows."""
        return max(self.checkpoints, key=lambda kept: kept.seq, default=None)


class CheckpointFile:
    """A file of JSON lines that only grows, in a folder which may be on another disk or host.

    Args:
        folder: it is made where it is missing.
        name: of the ledger, so that one folder can serve several.
        is_there: whether the file was made before: where it is missing now, its disk or host is away.
    """

    def __init__(self, folder: Path, name: str = "ledger", *, is_there: bool = False) -> None:
        self.path = folder / f"{name}.checkpoints.jsonl"
        self._is_there = is_there

    def make(self) -> None:
        """Make the file where it is missing, and try that it can be written.

        Raises:
            CheckpointError: it can't be.
        """
        try:
            self._open().close()
        except OSError as error:
            raise CheckpointError(f"checkpoints {self.path}: can't be written: {error.strerror}") from None

    def _open(self) -> Any:
        if not self._is_there:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | (0 if self._is_there else os.O_CREAT)
        return open(os.open(self.path, flags, 0o644), "a+b", buffering=0)

    def append(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint down, to the disk itself.

        Raises:
            OSError: it can't be written.
        """
        with self._open() as file:
            line = json.dumps(asdict(checkpoint), sort_keys=True).encode() + b"\n"
            line = line if _ends_a_line(file) else b"\n" + line
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())

    def read(self) -> Kept:
        """All checkpoints that are there; none where there is no file yet.

        Raises:
            CheckpointError: the file can't be read.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            if self._is_there:
                raise CheckpointError(f"checkpoints {self.path}: gone, or its disk or host is away") from None
            lines = []
        except OSError as error:
            raise CheckpointError(f"checkpoints {self.path}: can't be read: {error.strerror}") from None
        found = [_parsed(line) for line in lines]
        unreadable = tuple(number for number, kept in enumerate(found, start=1) if kept is None)
        return Kept(checkpoints=tuple(kept for kept in found if kept), unreadable=unreadable)


def _ends_a_line(file: Any) -> bool:
    """Whether a file is empty or ends with a whole line: one that a crash tore must not spoil the next."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _parsed(line: bytes) -> Checkpoint | None:
    try:
        checkpoint = Checkpoint(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    fields = asdict(checkpoint)
    numbers = [fields.pop(name) for name in ("seq", "at_ms")]
    sized = all(type(number) is int and 0 < number <= _MOST for number in numbers)
    return checkpoint if sized and all(isinstance(text, str) for text in fields.values()) else None


# --- the audit against them


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What came of holding an audit against its checkpoints.

    Attributes:
        rows: that follow from one another, from the first.
        checkpoints: that were compared.
        newest: the checkpoint that knows most rows.
        bad: number of the first row that isn't what it was; None where all are.
        problem: what is wrong, in a line; "" where nothing is.
        unsigned: number of the first row after the newest checkpoint that should have been signed.
        unwritten: why a checkpoint after it could not be written, as the audit has it.
    """

    rows: int
    checkpoints: int
    newest: Checkpoint | None
    bad: int | None = None
    problem: str = ""
    unsigned: int | None = None
    unwritten: str = ""


def verify(rows: Iterable[audit.Row], checkpoints: Iterable[Checkpoint], public: str) -> Checked:
    """Hold an audit against its own chain and against what was signed of it.

    Args:
        rows: of the audit, in order; they may be a stream.
        checkpoints: in any order, of one place or of several; read before the rows, which only grow.
        public: key that must have signed them, in hexadecimal.
    """
    return _Comparison(checkpoints, public).of(rows)


class _Comparison:
    """One pass over the rows, with the checkpoints in the rows' order."""

    def __init__(self, checkpoints: Iterable[Checkpoint], public: str) -> None:
        self._signed = sorted(set(checkpoints), key=lambda kept: (kept.seq, kept.at_ms))
        self._public = public
        self._newest = self._signed[-1] if self._signed else None
        self._next = 0
        self._rows, self._last = 0, audit.GENESIS
        self._unsigned: int | None = None
        self._unwritten = ""

    def of(self, rows: Iterable[audit.Row]) -> Checked:
        forged = next((kept for kept in self._signed if not kept.signed_by(self._public)), None)
        if forged:
            return self._found(f"The checkpoint of row {forged.seq} isn't signed by the key {self._public}")
        for row in rows:
            problem = self._take(row)
            if problem:
                return self._found(problem, bad=self._rows + 1)
            self._rows, self._last = row[0], row[2]
        if self._next < len(self._signed):
            return self._found(self._cut(), bad=self._rows + 1)
        return self._found("")

    def _found(self, problem: str, bad: int | None = None) -> Checked:
        return Checked(
            rows=self._rows,
            checkpoints=len(self._signed),
            newest=self._newest,
            bad=bad,
            problem=problem,
            unsigned=self._unsigned,
            unwritten=self._unwritten,
        )

    def _take(self, row: audit.Row) -> str:
        """What is wrong with the next row; "" where nothing is."""
        seq, entry, row_hash = row
        if not audit.follows(row, self._last, self._rows + 1):
            return (
                f"Row {self._rows + 1} was changed, moved or taken out: "
                "it doesn't follow from those before it"
            )
        if seq == 1 and any(kept.ledger != row_hash for kept in self._signed):
            return "Row 1 isn't the one that was signed: this is another ledger, or it was made anew"
        while self._next < len(self._signed) and self._signed[self._next].seq == seq:
            if self._signed[self._next].hash != row_hash:
                return self._rewritten(seq)
            self._next += 1
        self._watch(seq, entry)
        return ""

    def _rewritten(self, seq: int) -> str:
        before = self._signed[self._next - 1].seq if self._next else 0
        return (
            f"Row {seq} isn't the one that was signed: one of the rows {before + 1} to {seq} was changed, "
            "and the chain after it made anew"
        )

    def _cut(self) -> str:
        newest = self._signed[-1]
        return (
            f"Row {self._rows + 1} is missing: the tail was cut; the rows up to {newest.seq} were signed "
            "and must be there"
        )

    def _watch(self, seq: int, entry: audit.Entry) -> None:
        """Note what no checkpoint covers."""
        if entry.kind not in SIGNED or seq <= (self._newest.seq if self._newest else 0):
            return
        self._unsigned = self._unsigned or seq
        if entry.kind == "incident" and entry.rule == RULE:
            self._unwritten = str(audit.told(entry).get("reason"))
