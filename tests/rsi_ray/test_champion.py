"""The store of a lineage's champions: the ledger decides what stands, and files must be what they were."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import safe_open

from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Version, evidence_of
from rsi_ray.errors import ChampionError
from safety import Allow, Deny, Hold, Ledger, artifact_digest
from tests.rsi_ray.champions import (
    SPACE,
    SPEC,
    RolledBack,
    approved,
    candidate,
    evidence,
    grown,
    open_lineage,
    pointer,
    promote,
)
from tests.safety.fakes import kinds, limits


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    open_lineage(opened)
    yield opened
    opened.close()


@pytest.fixture
def store(ledger: Ledger, tmp_path: Path) -> ChampionStore:
    """A lineage at its base."""
    return grown(ledger, tmp_path, 0)


# --- files


def test_a_version_is_one_file_whose_digest_binds_weights_and_manifest(store: ChampionStore):
    version = store.stage(candidate(1))
    assert version.artifact == artifact_digest(version.path)
    assert version.path.name == f"1-{version.artifact[:12]}.safetensors"
    with safe_open(version.path, framework="np") as file:
        assert list(file.get_tensor("a")) == [1.0, 1.0]
        assert list(file.metadata()) == ["rsi_ray.champion"]
    manifest = version.manifest
    assert (manifest.lineage, manifest.generation) == ("line", 1)
    assert manifest.parent == store.champion().artifact
    assert manifest.rebuilt_space() == SPACE
    assert manifest.rebuilt_spec(SPACE) == SPEC
    assert store.stage(candidate(1, params=3)).artifact != version.artifact


def test_the_same_candidate_is_the_same_version(store: ChampionStore):
    first, again = store.stage(candidate(1)), store.stage(candidate(1))
    assert first == again
    assert len(list(store.folder.glob("1-*.safetensors"))) == 1


def test_flops_of_ancestors_are_counted_to_the_last_one(ledger: Ledger, tmp_path: Path):
    store = ChampionStore(tmp_path / "line", ledger)
    store.adopt_base(candidate(0, train_flops=10**27 + 1, inherits=False))
    assert promote(store, ledger, store.stage(candidate(1, train_flops=7))) == Allow()
    child = store.stage(candidate(2, train_flops=3)).manifest
    assert (child.train_flops, child.ancestor_flops, child.total_flops) == (3, 10**27 + 8, 10**27 + 11)
    assert store.stage(candidate(3, inherits=False)).manifest.ancestor_flops == 0


def test_the_ledger_is_told_all_training_in_gflop_rounded_up(ledger: Ledger, tmp_path: Path):
    store = ChampionStore(tmp_path / "line", ledger)
    store.adopt_base(candidate(0, train_flops=2 * 10**9, inherits=False))
    assert store.stage(candidate(1, train_flops=10**9 + 1)).champion.train_gflop == 4
    with pytest.raises(ChampionError, match="FLOPs of training are more than a ledger holds"):
        assert store.stage(candidate(2, train_flops=10**30)).champion


def test_a_lineage_has_one_base(store: ChampionStore):
    base = store.champion()
    assert (base.state, base.current) == ("base", True)
    assert store.adopt_base(candidate(0, inherits=False)) == base
    with pytest.raises(
        ChampionError, match=f"line: it has begun with {base.name}; expected a new lineage's name"
    ):
        store.adopt_base(candidate(5, inherits=False))
    assert store.champion() == base


def test_a_file_beside_the_base_that_says_it_is_one_is_not_found(ledger: Ledger, tmp_path: Path):
    store = grown(ledger, tmp_path, 1)
    other = ChampionStore(tmp_path / "other" / "line", Record())
    stranger = other.adopt_base(candidate(9, inherits=False)).path
    stranger.rename(store.folder / stranger.name)
    with pytest.raises(ChampionError, match="expected the one base it had"):
        store.find(stranger.stem)


def test_a_base_that_was_put_in_the_first_ones_place_is_none(ledger: Ledger, tmp_path: Path):
    for promoted in (0, 1):
        store = grown(ledger, tmp_path / str(promoted), promoted)
        other = ChampionStore(tmp_path / f"other{promoted}" / "line", Record())
        stranger = other.adopt_base(candidate(9, inherits=False)).path
        base = store.find("0").path
        base.unlink()
        stranger.rename(store.folder / stranger.name)
        with pytest.raises(ChampionError, match="expected the one base it had"):
            store._base(ledger.champions("line"))


class Record:
    """A ledger in which nothing was promoted."""

    def champions(self, lineage: str) -> list[object]:
        return []


def test_a_lineages_name_is_a_plain_one(ledger: Ledger, tmp_path: Path):
    with pytest.raises(ChampionError, match="lineage 'a b': expected 1 to 63 letters"):
        ChampionStore(tmp_path / "a b", ledger)


def test_a_lineage_without_a_base_has_no_champion_and_stages_nothing(ledger: Ledger, tmp_path: Path):
    store = ChampionStore(tmp_path / "line", ledger)
    assert store.current() is None
    for do in (store.champion, store.settle, lambda: store.stage(candidate(1)), store.last_known_safe):
        with pytest.raises(ChampionError, match="lineage line: "):
            do()
    assert not store.folder.exists()


class Payload:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_no_checkpoint_and_its_payload_is_not_run(
    store: ChampionStore, tmp_path: Path, protocol: int
):
    before = sorted(store.folder.iterdir())
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "run"), protocol=protocol))
    with pytest.raises(ChampionError, match="expected a safetensors file, and nothing else is read") as told:
        store.stage(candidate(weights=path))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()
    assert sorted(store.folder.iterdir()) == before


def test_a_link_is_no_checkpoint_in_whichever_place(store: ChampionStore, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    version = store.stage(candidate(1))
    path.symlink_to(version.path)
    with pytest.raises(ChampionError, match="expected a plain file, found a symbolic link"):
        store.stage(candidate(weights=path))
    copy = version.path.rename(tmp_path / "copy")
    version.path.symlink_to(copy)
    with pytest.raises(ChampionError, match="expected a plain file, found a symbolic link"):
        store.promote(version.artifact, never)


def never(*_: object) -> Allow:
    raise AssertionError("asked")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80", b"\xff" * 40, (10).to_bytes(8, "little") + b'{"a":1}   ', b"\x02" + b"\0" * 7 + b"[]"],
    ids=["empty", "a byte", "a long header", "no tensor", "no mapping"],
)
def test_what_is_no_whole_safetensors_file_is_refused_and_leaves_nothing(
    store: ChampionStore, content: bytes
):
    before = sorted(store.folder.iterdir())
    with pytest.raises(ChampionError, match="safetensors file"):
        store.stage(candidate(weights=content))
    assert sorted(store.folder.iterdir()) == before


def test_weights_whose_end_is_cut_off_are_refused(store: ChampionStore):
    before = sorted(store.folder.iterdir())
    whole = candidate(1).weights
    assert isinstance(whole, bytes)
    with pytest.raises(ChampionError, match="no whole safetensors file"):
        store.stage(candidate(weights=whole[:-1]))
    assert sorted(store.folder.iterdir()) == before


def test_evidence_of_other_weights_is_no_evidence(store: ChampionStore):
    weights = candidate(1).weights
    assert isinstance(weights, bytes)
    digest = hashlib.sha256(weights).hexdigest()
    assert store.stage(candidate(1, evidence=evidence(0.5, weights=digest))).manifest.weights == digest
    for wrong, told in (
        (evidence(0.5, weights="ab"), "of other ones, with the digest ab"),
        (b"x", "expected JSON"),
    ):
        with pytest.raises(ChampionError, match=told):
            store.stage(candidate(1, evidence=wrong))


# --- promotion


def test_a_version_that_the_ledger_allows_becomes_the_champion(store: ChampionStore, ledger: Ledger):
    base = store.champion()
    version = store.stage(candidate(1))
    assert store.champion() == base
    assert promote(store, ledger, version) == Allow()
    found = store.champion()
    assert (found.artifact, found.state, found.current) == (version.artifact, "promoted", True)
    assert found.promoted is not None
    assert found.promoted.approvers == ("ann",)
    assert pointer(store) == {"artifact": version.artifact, "file": version.path.name, "generation": 1}
    assert store.find("0").current is False


def test_a_version_that_the_ledger_does_not_allow_stays_a_candidate(store: ChampionStore, ledger: Ledger):
    version, before = store.stage(candidate(1)), pointer(store)
    verdict = store.promote(
        version.artifact, lambda champion: ledger.promote("s", "k", 0.5, 0.6, "max", champion, "")
    )
    assert isinstance(verdict, Hold)
    assert (store.find("1").state, pointer(store)) == ("candidate", before)


def test_an_artifact_that_was_swapped_after_its_approval_is_not_promoted(
    store: ChampionStore, ledger: Ledger
):
    version, other = store.stage(candidate(1)), store.stage(candidate(2))
    approved(ledger, version.champion)
    version.path.write_bytes(other.path.read_bytes())
    rows, before = kinds(ledger), pointer(store)
    verdict = store.promote(version.artifact, never)
    assert isinstance(verdict, Deny)
    assert verdict.rule == "artifact.digest"
    assert f"its digest is {other.artifact}, approved was {version.artifact}" in verdict.reason
    assert (pointer(store), kinds(ledger), ledger.champions("line")) == (before, rows, [])


def test_evidence_that_was_swapped_after_the_approval_promotes_nothing(store: ChampionStore, ledger: Ledger):
    version = store.stage(candidate(1))
    request = approved(ledger, version.champion)
    beside = next(store.folder.glob(f"{version.name}.evidence.json"))
    beside.write_bytes(b'{"score":1}')
    verdict = store.promote(
        version.artifact, lambda champion: ledger.promote("s", "k", 0.5, 0.6, "max", champion, request)
    )
    assert isinstance(verdict, Deny)
    assert verdict.rule == "approval.evidence"
    beside.unlink()
    with pytest.raises(ChampionError, match=r"evidence\.json is missing"):
        store.promote(version.artifact, never)


def test_a_champion_that_was_swapped_on_disk_is_told_in_one_line(ledger: Ledger, tmp_path: Path):
    store = grown(ledger, tmp_path, 2)
    champion = store.champion()
    champion.path.write_bytes(store.find("1").path.read_bytes())
    for do in (store.champion, store.settle):
        with pytest.raises(ChampionError, match=f"it isn't what it was: .* expected {champion.artifact}"):
            do()
    versions, problems = store.versions()
    assert [one.manifest.generation for one in versions] == [0, 1]
    assert len(problems) == 1
    champion.path.unlink()
    with pytest.raises(ChampionError, match="cannot be read: No such file"):
        store.champion()
    assert len(store.versions()[1]) == 1


def test_a_version_of_another_lineage_is_none_of_this_one(ledger: Ledger, tmp_path: Path):
    other = ChampionStore(tmp_path / "other", ledger)
    stranger = other.adopt_base(candidate(4, inherits=False))
    store = grown(ledger, tmp_path, 0)
    (store.folder / stranger.path.name).write_bytes(stranger.path.read_bytes())
    with pytest.raises(
        ChampionError, match="expected a version of lineage line, found generation 0 of lineage other"
    ):
        store.find(stranger.artifact)


def test_a_pointer_that_fell_behind_the_ledger_is_brought_forward(store: ChampionStore, ledger: Ledger):
    before = (store.folder / "current.json").read_bytes()
    version = store.stage(candidate(1))
    assert promote(store, ledger, version) == Allow()
    (store.folder / "current.json").write_bytes(before)
    assert store.settle().artifact == version.artifact
    assert pointer(store)["artifact"] == version.artifact
    (store.folder / "current.json").unlink()
    store.settle()
    assert pointer(store)["artifact"] == version.artifact


# --- what is found


def test_versions_are_found_by_generation_name_and_digest(ledger: Ledger, tmp_path: Path):
    store = grown(ledger, tmp_path, 2)
    second = store.champion()
    for name in ("2", "current", second.name, second.artifact[:4], second.artifact):
        assert store.find(name) == second
    third, other = store.stage(candidate(3)), store.stage(candidate(4))
    with pytest.raises(ChampionError, match=f"'3' of lineage line: expected one, found .*{third.name}"):
        store.find("3")
    assert promote(store, ledger, other) == Allow()
    assert store.find("3").artifact == other.artifact
    for name in ("", "9", "fff", "../x", "zzzz"):
        with pytest.raises(ChampionError, match="expected one, found none"):
            store.find(name)
    assert [one.state for one in store.versions()[0]].count("candidate") == 1


def test_history_tells_what_each_promotion_changed(ledger: Ledger, tmp_path: Path):
    store = grown(ledger, tmp_path, 1)
    deeper = {**candidate().spec, "fields": {**candidate().spec["fields"], "depth": 2}}
    assert promote(store, ledger, store.stage(candidate(2, spec=deeper)), 0.6, 0.63) == Allow()
    first, second = store.history()
    assert (first.generation, first.difference, first.approvals) == (1, (), ("ann",))
    assert list(map(str, second.difference)) == ["depth: 1 -> 2"]
    assert (second.old_score, second.new_score) == (0.6, 0.63)
    assert second.performance_delta == pytest.approx(0.03)
    assert second.improvement == pytest.approx(0.05)
    assert second.parent == first.artifact
    assert second.request == next(asked.request.digest for asked, _ in reversed(ledger.requests()))
    store.find("1").path.unlink()
    first, second = store.history()
    assert (first.new_spec, second.old_spec, second.difference) == (None, None, ())


# --- going back


@pytest.fixture
def record(ledger: Ledger) -> RolledBack:
    return RolledBack(ledger)


def back(store: ChampionStore, record: RolledBack, to: Version) -> Version:
    return store.roll_back(to, lambda version: store_told(record, version))


def store_told(record: RolledBack, version: Version) -> None:
    record.rollback("line", "" if version.state == "base" else version.artifact, "worse", "ann")


def test_the_last_known_safe_version_is_the_one_before_the_champion(
    ledger: Ledger, record: RolledBack, tmp_path: Path
):
    grown(ledger, tmp_path, 3)
    store = ChampionStore(tmp_path / "line", record)
    assert store.last_known_safe() == store.find("2")
    champion = back(store, record, store.find("2"))
    assert (champion.manifest.generation, pointer(store)["generation"]) == (2, 2)
    assert store.find("3").state == "rolled back"
    assert [one.rolled_back for one in store.history()] == [False, False, True]
    assert store.last_known_safe() == store.find("1")
    store.find("1").path.write_bytes(b"damaged")
    assert store.last_known_safe().state == "base"
    back(store, record, store.last_known_safe())
    assert (store.champion().state, pointer(store)["generation"]) == ("base", 0)
    with pytest.raises(ChampionError, match="nothing before its champion to go back to"):
        store.last_known_safe()


def test_what_nobody_approved_is_not_known_safe(ledger: Ledger, tmp_path: Path):
    ledger.open_sweep("f", limits(require_approval=False, max_improvement_rate=5.0), "free")
    store = ChampionStore(tmp_path / "free", ledger)
    store.adopt_base(candidate(0, inherits=False))
    for number, old in ((1, 0.5), (2, 0.6)):
        version = store.stage(candidate(number))
        verdict = store.promote(
            version.artifact,
            lambda champion, old=old: ledger.promote("f", champion.artifact, old, 0.6, "max", champion),
        )
        assert verdict == Allow()
    assert store.champion().manifest.generation == 2
    assert store.last_known_safe().state == "base"


def test_a_lineage_goes_back_to_champions_only(ledger: Ledger, record: RolledBack, tmp_path: Path):
    grown(ledger, tmp_path, 2)
    store = ChampionStore(tmp_path / "line", record)
    staged = store.stage(candidate(7))
    for to, found in ((staged, "one that is candidate"), (store.champion(), "the champion itself")):
        with pytest.raises(ChampionError, match=f"expected the base or an earlier champion, found {found}"):
            back(store, record, to)
    back(store, record, store.find("0"))
    with pytest.raises(ChampionError, match="found one that is rolled back"):
        back(store, record, store.find("1"))
    assert record.told == [("line", "", "worse", "ann")]


def test_a_candidate_after_a_rollback_follows_the_version_that_stands(
    ledger: Ledger, record: RolledBack, tmp_path: Path
):
    grown(ledger, tmp_path, 2)
    store = ChampionStore(tmp_path / "line", record)
    back(store, record, store.find("1"))
    staged = store.stage(candidate(8))
    assert (staged.manifest.generation, staged.champion.parent) == (3, store.find("1").artifact)
    back(store, record, store.find("0"))
    staged = store.stage(candidate(8))
    assert (staged.manifest.parent, staged.champion.parent) == (store.find("0").artifact, "")


# --- a process that is killed in the middle


PROGRAM = """
import itertools, json, os, signal, sys
from pathlib import Path
from rsi_ray.champion import ChampionStore
from safety import Ledger
from tests.rsi_ray.champions import candidate, pointer, promote

folder = Path(sys.argv[1])


def counted(call, steps):
    def step(*given, **more):
        if next(steps) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **more)

    return step


def go_on(left):
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    store, steps = ChampionStore(folder / "line", ledger), itertools.count(left, -1)
    for name in ("fsync", "replace"):
        setattr(os, name, counted(getattr(os, name), steps))
    Ledger.promote = counted(Ledger.promote, steps)
    store.settle()
    if not store.is_champion(candidate(1)):
        promote(store, ledger, store.stage(candidate(1)))
    os._exit(0)


def look():
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    store = ChampionStore(folder / "line", ledger)
    found = len(ledger.champions("line")), store.champion().manifest.generation, pointer(store)["generation"]
    ledger.close()
    return found


left, was = 0, 0
while True:
    child = os.fork() or go_on(left)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = look()
    print(json.dumps([code, *found]))
    if code != -signal.SIGKILL:
        break
    # from the first step again, once the ledger has it
    left, was = left + 1 if found[0] == was else 0, found[0]
"""


@pytest.mark.processes
def test_a_kill_at_any_step_leaves_the_old_champion_or_the_new_one(ledger: Ledger, tmp_path: Path):
    grown(ledger, tmp_path, 0)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    codes, promoted, champions, pointers = zip(*map(json.loads, done.stdout.splitlines()), strict=True)
    assert (set(codes[:-1]), codes[-1]) == ({-9}, 0)
    # at every moment the champion is the ledger's, and the pointer it or the one before
    assert champions == promoted
    assert all(pointer in (count, count - 1) for pointer, count in zip(pointers, promoted, strict=True))
    assert (promoted[-1], pointers[-1]) == (1, 1)
    assert sorted(promoted) == list(promoted)
    # killed before the ledger was asked, and between its answer and the pointer
    assert promoted.count(0) >= 6
    assert list(zip(promoted, pointers, strict=True)).count((1, 0)) >= 3


def test_evidence_that_was_changed_after_the_promotion_is_noticed(ledger: Ledger, tmp_path: Path):
    open_lineage(ledger)
    store = grown(ledger, tmp_path, 1)
    path = evidence_of(store.champion().path)
    path.write_bytes(path.read_bytes().replace(b"0.6", b"0.9"))
    with pytest.raises(ChampionError, match="was changed; it is not that by which it was promoted"):
        store.champion()
