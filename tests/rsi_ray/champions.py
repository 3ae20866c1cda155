"""Candidates of a small lineage, and a ledger that promotes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rfc8785
from safetensors.numpy import save

from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Candidate, Version
from rsi_ray.description import describe
from safety import Allow, Champion, Ledger, Promoted, Verdict
from search_spaces import Head, TransformerSpace, TransformerSpec
from tests.safety.approvers import answer, approval
from tests.safety.fakes import limits

SPACE = TransformerSpace(
    heads=(
        Head(name="text", classes=8, length=6, dense=True),
        Head(name="sums", classes=4, length=5, dense=False),
    ),
    batch_size=2,
    vocab=8,
)
SPEC = TransformerSpec(
    depth=1,
    width=16,
    heads=2,
    kv_heads=1,
    ffn_width=16,
    ffn_kind="gelu",
    norm="rmsnorm",
    position="rotary",
    tied=True,
)


def candidate(value: float = 0.0, **changed: Any) -> Candidate:
    """One whose weights are two numbers, and follow from a value."""
    given: dict[str, Any] = {
        "weights": save({"a": np.array([value, 1.0], dtype=np.float32)}),
        "space": describe(SPACE),
        "spec": describe(SPEC),
        "config": {"depth": 1, "learning_rate": 0.003},
        "training": None,
        "params": 2,
        "train_flops": 10**20,
        "inherits": True,
        "evidence": evidence(0.5 + value / 10, 0.6 + value / 10),
    }
    return Candidate(**{**given, **changed})


def evidence(*scores: float, **more: str) -> bytes:
    """What an evaluator found for so many seeds."""
    found = [
        {"seed": str(seed), "score": score, "domains": {"reasoning": score, "coding": score / 2}}
        for seed, score in enumerate(scores)
    ]
    return rfc8785.dumps({"measurements": found, **more})


def open_lineage(ledger: Ledger, name: str = "line") -> None:
    """A sweep of the lineage, whose champions ann approves."""
    ledger.open_sweep("s", limits(max_improvement_rate=5.0, approval=approval("ann")), name)


def approved(ledger: Ledger, champion: Champion) -> str:
    """Digest of a request that ann has approved."""
    request = ledger.ask_promotion("s", champion, "loop", "better").digest
    if not ledger.request(request)[0].decisions:
        answer(ledger, request, "ann")
    return request


def promote(
    store: ChampionStore, ledger: Ledger, version: Version, old: float | None = None, new: float = 0.6
) -> Verdict:
    """The promotion of a version that ann approves, over a champion whose score is its own by default."""
    before = [one.promotion.new for one in ledger.champions("line") if not one.rolled_back]
    old = (before[-1] if before else 0.5) if old is None else old
    request = approved(ledger, version.champion)
    return store.promote(
        version.artifact,
        lambda champion: ledger.promote("s", f"line/{version.name}", old, new, "max", champion, request),
    )


def grown(ledger: Ledger, folder: Path, generations: int) -> ChampionStore:
    """A store with a base, 0, and so many champions after it, whose weights begin with their number."""
    store = ChampionStore(folder / "line", ledger)
    store.adopt_base(candidate(0, inherits=False))
    for number in range(1, generations + 1):
        assert promote(store, ledger, store.stage(candidate(number))) == Allow()
    return store


class RolledBack:
    """A ledger's record of a lineage that went back: those of the generations it names are no champions."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.generations: set[int] = set()
        self.told: list[tuple[str, str, str, str]] = []

    def champions(self, lineage: str) -> Sequence[Promoted]:
        return [
            replace(one, rolled_back=True)
            if one.champion and one.champion.generation in self.generations
            else one
            for one in self._ledger.champions(lineage)
        ]

    def rollback(self, lineage: str, to_artifact: str, reason: str, by: str) -> bool:
        self.told.append((lineage, to_artifact, reason, by))
        found = [one.champion for one in self.champions(lineage) if one.champion and not one.rolled_back]
        kept = next((one.generation for one in found if one.artifact == to_artifact), 0)
        self.generations |= {one.generation for one in found if one.generation > kept}
        return True


def pointer(store: ChampionStore) -> Mapping[str, Any]:
    """What `current.json` says."""
    told: Mapping[str, Any] = json.loads((store.folder / "current.json").read_bytes())
    return told
