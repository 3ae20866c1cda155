"""A generation's search before anything is trained: whom it begins with, and what is over the ceilings."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.samplers import RandomSampler
from optuna.trial import create_trial

from rsi_ray import Sweep, search_engine
from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.disk import RUN_FILE, STUDY_FILE, open_folder
from rsi_ray.errors import SweepError
from rsi_ray.heritage import Parent
from rsi_ray.loop import Found, Standing
from rsi_ray.records import RECORD
from rsi_ray.search_engine import LEARNED, ArchitectureSearchEngine
from rsi_ray.stored_weights import export_weights
from rsi_ray.study import open_study
from rsi_ray.tasks import BreastCancerOptions, breast_cancer_task
from safety import DocumentError
from search_spaces import MLPSpace
from search_spaces.given_trial import spec_from
from search_spaces.growth import relation
from search_spaces.mlp import MLPSpec
from search_spaces.parameters import parameters_of

TASK = breast_cancer_task(BreastCancerOptions(holdout_size=32))
SPACE = MLPSpace(heads=TASK.heads, batch_size=32, depth=(1, 3), widths=(8, 16, 32), dropouts=(0.0,))
BOUNDS = {"max_params": 100_000, "max_flops": 1e9, "max_memory": 1e9}


def engine_of(folder: Path, bounds=BOUNDS, **changes):
    given = {"name": "loop", "storage": folder, "trials": 8, "seed": 5, **changes}
    sweep = Sweep(SPACE, TASK, {"bounds": bounds}, **given)
    return ArchitectureSearchEngine(sweep=sweep, run="loop-1")


def champion_of(engine):
    """A small champion, by whatever names the space has for its parameters."""
    spec = MLPSpec(widths=(16,), activation="relu", norm="none", residual=False)
    config = parameters_of(engine.sweep.space, spec)
    return Standing(generation=1, artifact="a", score=0.5, config=config)


def near(engine, generation=2):
    champion = champion_of(engine)
    return champion, engine.drafts(champion, generation, None)[: engine.near]


def test_what_fits_on_no_gpu_here_is_not_drafted(tmp_path, monkeypatch):
    monkeypatch.setattr("rsi_ray.search_engine.smallest_gpu", lambda: 10**12)
    engine = engine_of(tmp_path, gpus="auto")
    assert near(engine)[1]
    assert engine.job(2, None).resources.gpu_memory == 10**12
    monkeypatch.setattr("rsi_ray.search_engine.smallest_gpu", lambda: 1000)
    engine = engine_of(tmp_path, gpus="auto")
    assert engine.drafts(champion_of(engine), 2, None) == []


def test_a_later_generation_is_searched_on_gpus_that_are_away_by_then(tmp_path, monkeypatch):
    there = [10**12]
    monkeypatch.setattr("rsi_ray.search_engine.smallest_gpu", lambda: there.pop() if there else 0)
    engine = engine_of(tmp_path, gpus="auto")
    assert [engine.gpu_memory() for _ in range(2)] == [10**12] * 2
    assert engine.generation_sweep(2, None).checked_plan().resources.gpu_memory == 10**12
    with pytest.raises(SweepError, match=r"set resources\.gpu_memory"):
        engine_of(tmp_path, gpus="auto").gpu_memory()


@pytest.mark.parametrize(
    ("asked", "known"), [({"gpus": 0.5}, 0), ({"gpus": "auto"}, 7), ({"gpus": "auto", "gpu_memory": 9}, 9)]
)
def test_what_was_found_before_holds_where_the_file_says_nothing_and_it_matters(tmp_path, asked, known):
    assert engine_of(tmp_path, **asked).gpu_memory(found=7) == known


def kinds(engine, champion, configs):
    job = engine.sweep.job()
    old = spec_from(job, champion.config)[0].spec
    return [relation(SPACE, old, spec_from(job, one)[0].spec).kind == "exact" for one in configs]


def test_half_of_a_generation_begins_near_the_champion_growing_and_changing_in_turn(tmp_path):
    engine = engine_of(tmp_path)
    champion, found = near(engine)
    assert len(found) == 4
    assert kinds(engine, champion, found) == [True, False, True, False]
    assert len({str(one) for one in found}) == 4
    assert champion.config not in found


def test_a_champion_is_trained_on_where_that_is_asked_and_its_weights_are_inherited(tmp_path):
    engine = engine_of(tmp_path)
    engine.train_on = True
    config = dict(champion_of(engine).config)
    spec = spec_from(engine.sweep.job(), config)[0].spec
    parent = Parent(weights=tmp_path, artifact="a", config=config, spec=spec, train_flops=1)
    drafts = [{"a": number} for number in range(9)]
    assert engine.first(parent, drafts) == [drafts[0], config, drafts[1], drafts[2]]
    assert engine.first(None, drafts) == drafts[:4]
    engine.train_on = False
    assert engine.first(parent, drafts) == drafts[:4]
    engine.train_on = True
    engine.sweep.space = Growthless()
    assert engine.first(parent, drafts) == drafts[:4]


class Growthless:
    """A space whose candidates inherit nothing."""


def test_no_neighbour_over_a_ceiling_is_trained(tmp_path):
    engine = engine_of(tmp_path, trials=100)
    everybody = near(engine)[1]
    job = engine.sweep.job()
    most = sorted(job.price(one).params for one in everybody)[len(everybody) // 2]
    tight = engine_of(tmp_path, bounds={**BOUNDS, "max_params": most}, trials=100)
    assert {str(one) for one in near(tight)[1]} == {
        str(one) for one in everybody if job.price(one).params <= most
    }


def test_a_generation_begins_alike_each_time_and_the_next_one_otherwise(tmp_path):
    engine = engine_of(tmp_path)
    assert near(engine) == near(engine_of(tmp_path))
    assert near(engine)[1] != near(engine, 3)[1]


def test_each_generation_has_a_name_a_seed_and_a_parent_of_its_own(tmp_path):
    engine = engine_of(tmp_path, baseline=champion_of(engine_of(tmp_path)).config)
    parent = Parent(weights=tmp_path, artifact="a", config={}, spec=None, train_flops=1)
    sweep = engine.generation_sweep(3, parent)
    assert (sweep.seed, sweep.parent, sweep.baseline) == (8, parent, None)
    assert engine.name_of(0, None) == "loop-1-g0"
    assert engine.name_of(3, parent) == "loop-1-g3-a"  # after a rollback it has another one


def test_a_candidates_weights_lie_in_its_generations_folder(tmp_path):
    folder = tmp_path / "loop-1-g2-abc"
    parent = Parent(weights=tmp_path, artifact="abc", config={}, spec=None, train_flops=1)
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    found = Found(number=0, config={}, reported=0.5, record={"trial_id": "abc"})
    assert engine_of(tmp_path).weights_of(2, parent, found) == folder / "weights" / "abc.safetensors"


def test_weights_that_are_in_a_store_alone_are_known_and_brought_when_they_are_needed(tmp_path):
    uri = f"file://{tmp_path}/share"
    engine = engine_of(tmp_path / "runs", artifacts=uri)
    folder = tmp_path / "runs" / engine.name_of(0, None)
    folder.mkdir(parents=True)
    (folder / RUN_FILE).touch()
    study = open_study(folder / STUDY_FILE, folder.name, RandomSampler())
    for trial_id in ("abc", "pruned"):
        record = {"verdict": "measured", "trial_id": trial_id, "number": 0, "config": {}, "score": 0.5}
        study.add_trial(create_trial(value=0.5, user_attrs={RECORD: record}))
    export_weights(
        ArtifactStore(uri=uri).at(f"{folder.name}/weights"), "abc", lambda to: to.write_bytes(b"w")
    )
    (found,) = engine._kept(folder)
    path = engine.weights_of(0, None, found)
    assert (path, path.read_bytes()) == (folder / "weights" / "abc.safetensors", b"w")


@pytest.mark.parametrize(("params", "is_safe"), [(100_000, True), (100, False)])
def test_an_architecture_is_safe_under_every_ceiling_by_its_spec_and_by_its_parameters(
    tmp_path, params, is_safe
):
    engine = engine_of(tmp_path)
    champion = champion_of(engine)
    spec = spec_from(engine.sweep.job(), champion.config)[0].spec
    bounds = {**BOUNDS, "max_params": params}
    assert engine._validate_safety(spec, bounds) is is_safe
    assert engine._validate_safety(champion.config, bounds) is is_safe


def test_bounds_that_are_none_are_refused(tmp_path):
    engine = engine_of(tmp_path)
    with pytest.raises(DocumentError, match="max_params"):
        engine._validate_safety(champion_of(engine).config, {**BOUNDS, "max_params": -1})


class Learning(RandomSampler):
    """Remembers what it was given to start from."""

    start = ""

    def load(self, path: Path) -> None:
        self.start = path.read_text()

    def save(self, path: Path) -> None:
        path.write_text(f"{self.start}, more")


class Killed(Exception):
    pass


def test_a_generation_that_is_gone_on_with_learns_from_where_it_began(tmp_path, monkeypatch):
    shared = tmp_path / LEARNED / "line.safetensors"
    shared.parent.mkdir()
    shared.write_text("something")
    starts = []

    def killed(plan, _watch):
        starts.append(plan.sampler.inner.start)
        with open_folder(plan):
            raise Killed

    monkeypatch.setattr(search_engine, "run_sweep", killed)
    for _ in range(2):
        with pytest.raises(Killed):
            engine_of(tmp_path, lineage="line", sampler=Learning()).search(1, None, ())
        shared.write_text("something, more of another run")
    assert starts == ["something", "something"]
    with pytest.raises(Killed):
        engine_of(tmp_path, lineage="line", sampler=Learning()).search(2, None, ())
    assert starts[-1] == "something, more of another run"
