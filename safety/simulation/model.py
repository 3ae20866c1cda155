"""What a ledger must hold, in plain Python, by an arithmetic of its own: the ledger's is what is tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from safety.claim import Claim, Usage
from safety.limits import Limits

RESOURCES = ("train_gflop", "trials", "concurrent_params", "gpu_ms", "wall_ms")
LASTING = ("train_gflop", "gpu_ms", "wall_ms")
OPEN = ("reserved", "active", "revoked")
GFLOP = 10**9
_MOST = 2**62

Place = tuple[str, str]


@dataclass(kw_only=True, slots=True)
class Modelled:
    """A lease as it must be; times in milliseconds of the ledger's host, of the boot that is named."""

    id: int
    trial: str
    key: str
    sweep: str
    claim: Claim
    charges: Mapping[str, int]
    credit: Mapping[str, int] = field(default_factory=dict)
    state: str = "reserved"
    fence: int = 0
    holder: str = ""
    deadline_ms: int = 0
    began_ms: int = 0
    boot: str = ""
    rule: str = ""
    heard: dict[str, int] = field(default_factory=dict)

    def hear(self, told: Usage, number: int) -> None:
        """Remember the most that its reports have told; the last one's number is how many there were."""
        names = ("train_flops", "wall_ms", "gpu_ms", "reports")
        self.heard = {name: self.believed(told, name) for name in names}
        self.heard["reports"] = max(self.heard["reports"], number)

    def believed(self, told: Usage, name: str) -> int:
        """An amount of a usage: the whole where it is none, and no less than was heard."""
        value: object = getattr(told, name)
        most = _MOST * GFLOP if name == "train_flops" else _MOST
        whole: int = getattr(self.claim, name)
        found = value if type(value) is int and 0 <= value <= most else whole
        return max(found, self.heard.get(name, 0))


@dataclass(kw_only=True, slots=True)
class Amounts:
    """A budget as it must be."""

    target: int
    held: int = 0
    spent: int = 0


@dataclass(slots=True)
class Model:
    """Leases by number, the newest by trial, budgets by scope and resource, sweeps' states and limits."""

    leases: dict[int, Modelled] = field(default_factory=dict)
    newest: dict[str, Modelled] = field(default_factory=dict)
    budgets: dict[Place, Amounts] = field(default_factory=dict)
    sweeps: dict[str, str] = field(default_factory=dict)
    limits: dict[str, Limits] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)
    killed: bool = False

    def is_open(self, sweep: str) -> bool:
        """Whether anything of a sweep may be admitted, begun or renewed."""
        return not self.killed and self.sweeps.get(sweep) == "open"

    def places(self, sweep: str) -> list[Place]:
        """The budgets that a sweep draws on."""
        return [(scope, resource) for scope in ("cluster", f"sweep:{sweep}") for resource in RESOURCES]

    def reserve(self, lease: Modelled) -> None:
        """Add a lease and hold its charges."""
        self.leases[lease.id] = self.newest[lease.trial] = lease
        for place in self.places(lease.sweep):
            self.budgets[place].held += lease.charges[place[1]]

    def end(self, lease: Modelled, used: Mapping[str, int], computed: Mapping[str, int]) -> None:
        """Return the hold, spend what was used; what was charged for nothing pays the next attempt."""
        if lease.state != "void":
            self.counted.add(lease.trial)
        for place in self.places(lease.sweep):
            charge, budget = lease.charges[place[1]], self.budgets[place]
            budget.held -= charge
            budget.spent += min(charge, max(0, used.get(place[1], 0) - lease.credit.get(place[1], 0)))
        charged = {name: max(used.get(name, 0), lease.credit.get(name, 0)) for name in LASTING}
        lease.credit = {name: max(0, charged[name] - computed.get(name, 0)) for name in LASTING}


def charges_of(claim: Claim, *, counted: bool, credit: Mapping[str, int]) -> dict[str, int]:
    """What a claim holds beyond what is paid already; a trial counts once."""
    whole = {
        "train_gflop": _rounded_up(claim.train_flops, GFLOP),
        "trials": 0 if counted else 1,
        "concurrent_params": claim.params,
        "gpu_ms": claim.gpu_ms,
        "wall_ms": claim.wall_ms,
    }
    return {name: max(0, amount - credit.get(name, 0)) for name, amount in whole.items()}


def forfeited(lease: Modelled) -> dict[str, int]:
    """All that lasts."""
    whole = charges_of(lease.claim, counted=True, credit={})
    return {**whole, "trials": lease.charges["trials"], "concurrent_params": 0}


def settled(lease: Modelled, told: Usage) -> dict[str, int]:
    """What a usage charges, no less than was heard: FLOPs as the arithmetic at the least."""
    claim = lease.claim
    flops, reports = (lease.believed(told, name) for name in ("train_flops", "reports"))
    arithmetic = _rounded_up(claim.train_flops * reports, claim.reports)
    return {
        "train_gflop": _rounded_up(max(flops, arithmetic), GFLOP),
        "trials": lease.charges["trials"],
        "gpu_ms": lease.believed(told, "gpu_ms"),
        "wall_ms": lease.believed(told, "wall_ms"),
    }


def cut_short(lease: Modelled, told: Usage, elapsed_ms: int) -> dict[str, int]:
    """What a trial is charged whose sweep is closed: up to its next report, its time so far, what it told."""
    claim = lease.claim
    if told.lease not in (0, lease.id):
        told = Usage()
    elapsed = min(elapsed_ms, claim.wall_ms)
    by_time = _rounded_up(claim.gpu_ms * elapsed, max(1, claim.wall_ms))
    made = lease.believed(told, "reports")
    usage = Usage(
        train_flops=lease.believed(told, "train_flops"),
        wall_ms=max(elapsed, lease.believed(told, "wall_ms")),
        gpu_ms=max(by_time, lease.believed(told, "gpu_ms")),
        reports=max(made, min(made + 1, claim.reports)),
    )
    return settled(replace(lease, heard={}), usage)


def _rounded_up(amount: int, unit: int) -> int:
    return -(-amount // unit)
