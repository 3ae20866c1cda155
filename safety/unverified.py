"""What a report on a ledger does not verify: as much a part of it as what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safety.checkpoints import Checked
from safety.history import History
from safety.limits import Limits

ALWAYS = (
    "Training FLOPs are arithmetic: those of the candidate for the reports that it made, or what its worker "
    "told where that is more; no counter in the hardware was read. A trial is rounded up to a whole GFLOP.",
    "Only what ran under a lease is in the sums: other programs on these hosts, preparation of data and "
    "evaluation outside a trial are not.",
    "Wall-clock and GPU time of a trial are told by its own worker; GPU time is that of the GPUs that it was "
    "given, whether they were busy or not.",
    "Memory is what was reserved, by arithmetic; for a user's own architecture or trainable it is what the "
    "user said.",
    "Scores are what each trial reported of itself. A score that stays within its capability ceiling leaves "
    "no row in the audit, so how near a domain came to its ceiling can't be told from it.",
    "Times are those of the ledger's host; nobody else attests to them.",
    "The name after 'by' is what was given with the command, unless the row carries a signature.",
    "Versions are those of the machine that made this report, and those that each run wrote into its own "
    "folder; workers on other hosts were not asked, and no code was compared with a release.",
    "Whoever administers the host that keeps the signing key can read it, and sign another history with it.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """How the audit was checked.

    Attributes:
        checked: against its chain and its checkpoints.
        public: key that must have signed them; "" where there was none to check by.
        pinned: whether whoever asks for the report named that key, not the ledger's own folder.
        places: where checkpoints were looked for.
        elsewhere: whether one of them is not the ledger's own folder.
    """

    checked: Checked
    public: str
    pinned: bool
    places: tuple[str, ...]
    elsewhere: bool


def unverified(
    evidence: Evidence, told: History, *, agree: bool, policies: Mapping[str, Limits | None]
) -> list[str]:
    """What can't be relied upon, the gravest first; a sentence each."""
    changed = [
        f"The limits {digest[:12]} in the ledger are not those that its audit names: they were changed."
        for digest, limits in policies.items()
        if limits is None
    ]
    return [*_of_the_audit(evidence), *changed, *_of_the_sums(told, agree=agree), *ALWAYS]


def _of_the_audit(evidence: Evidence) -> list[str]:
    checked, found = evidence.checked, []
    if checked.problem:
        found.append(f"The audit is not whole, so nothing below is proven. {checked.problem}.")
    if checked.newest is None:
        found.append(
            "No checkpoint was compared: rows cut off at the end, or a whole other history, don't show."
        )
        return found
    found.append(f"Rows after {checked.newest.seq}, the newest that was signed, could be cut off unseen.")
    if checked.unsigned is not None:
        found.append(
            f"Row {checked.unsigned} should have been signed and was not. {checked.unwritten}".strip()
        )
    if not evidence.elsewhere:
        found.append(
            "The checkpoints lie beside the ledger: whoever can write there can cut both. Give another place "
            "by --checkpoints."
        )
    if not evidence.pinned:
        found.append(
            "The key lies beside the ledger too: whoever replaced both could have signed anew. Pin it by "
            "--public-key."
        )
    return found


def _of_the_sums(told: History, *, agree: bool) -> list[str]:
    found = []
    if not agree:
        found.append(
            "Training FLOPs summed over the budgets, the leases and the audit differ: the largest counts."
        )
    if told.held:
        found.append(
            f"{len(told.held):,} leases are open: what they have used so far is not in the sums yet."
        )
    if not told.drills:
        found.append(
            "No drill of the kill switch is in the audit: how fast it stops workers was not measured."
        )
    return found
