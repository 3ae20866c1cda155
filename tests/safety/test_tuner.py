"""A governed Tuner that runs, on a governor and a Tune in this process."""

import os
from contextlib import closing
from types import SimpleNamespace

import pytest
from ray import tune
from ray.train.data_parallel_trainer import DataParallelTrainer
from ray.tune.impl.tuner_internal import TunerInternal

import safety
from safety import Ledger, PriceError, audit
from safety.actor import NAME, NAMESPACE, connect
from safety.device_memory import found_device_memories
from safety.tuner import _LENIENT, _class_of
from tests.safety.fake_ray import governing
from tests.safety.fakes import amounts, limits
from tests.safety.test_tune_plugins import FakeController, FakeTrial

COST = {"params": 3, "forward_flops": 1, "memory_bytes": 1, "train_flops": 10**9}


class Training(tune.Trainable):
    def step(self):
        return {"score": 0.5}


class FakeTune:
    """In place of Tune's loop: one trial that is asked for, trains one step, is judged, and is over.

    Attributes:
        ran: what its report had in it, for each trial.
        fails: raised after the trial.
    """

    def __init__(self):
        self.ran, self.stopped, self.fails, self.lenient = [], [], None, None

    def fit(self, internal):
        self.lenient = {name: os.environ.get(name) for name in _LENIENT}
        trial = FakeTrial("default", config={"width": 3})
        controller = FakeController(trial)
        scheduler = controller.scheduler = internal._tune_config.scheduler
        scheduler.on_trial_add(controller, trial)
        trainable = internal.trainable(trial.config)
        result = trainable.train()
        self.ran.append(result)
        self.stopped.append(internal.get_run_config().stop("default", result))
        trainable.stop()
        scheduler.on_trial_complete(controller, trial, result)
        if self.fails:
            raise self.fails
        internal._experiment_analysis = "analysed"
        return "grid"


@pytest.fixture
def playing(monkeypatch, tmp_path):
    played = FakeTune()
    monkeypatch.setattr(TunerInternal, "fit", lambda internal: played.fit(internal))
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    return played


@pytest.fixture
def ray(monkeypatch):
    with governing(monkeypatch) as fake:
        monkeypatch.setattr("safety.tuner.ray", fake)
        monkeypatch.setattr("safety.watch.ray", fake)
        yield fake


@pytest.fixture
def tuner(tmp_path):
    run = tune.RunConfig(name="run", storage_path=str(tmp_path))
    return tune.Tuner(Training, param_space={"width": 3}, run_config=run)


def govern(tuner, **options):
    options = {"cost": lambda config: COST, "trial_seconds": 60, "reports": 1, "meter": None, **options}
    return safety.govern(tuner, options.pop("limits", limits(sweep={"trials": 5})), **options)


@pytest.fixture
def books(tmp_path):
    """The ledger beside the run."""
    with closing(Ledger(f"sqlite:///{tmp_path}/ledger.db")) as ledger:
        yield ledger


def test_a_trial_is_priced_leased_judged_and_settled_and_its_sweep_is_closed(ray, playing, tuner, books):
    governed = govern(tuner)
    assert governed.fit() == "grid"
    (result,) = playing.ran
    assert (result["score"], result["lease"]["reports"], playing.stopped) == (0.5, 1, [False])
    assert amounts(books, "trials", "sweep:run", "run") == (0, 1, 0)
    assert amounts(books, "train_gflop", "cluster", "run") == (0, 1, 0)
    assert (books.sweep("run").state, books.open_leases("run")) == ("closed", [])
    assert audit.verify(books.audit()) is None
    assert governed._internal._experiment_analysis == "analysed"


def test_a_sweep_is_of_the_lineage_that_its_tuner_names(ray, playing, tuner, books):
    govern(tuner, sweep="x", lineage="family").fit()
    assert books.sweep("x").lineage == "family"


def test_the_tuner_itself_is_left_as_it_was_and_may_run_again(ray, playing, tuner, books):
    governed = govern(tuner)
    before = dict(vars(governed._internal))
    for _ in range(2):
        governed.fit()
        assert {**vars(governed._internal), "_experiment_analysis": None} == before
    assert amounts(books, "train_gflop", "cluster", "run") == (0, 2, 0)


def test_ray_is_begun_where_nobody_has_and_a_refused_trial_is_no_fault_to_tune(ray, playing, tuner):
    govern(tuner).fit()
    govern(tuner, sweep="again").fit()
    assert ray.initialized == 1
    assert playing.lenient == _LENIENT
    assert not [name for name in _LENIENT if name in os.environ]


def test_a_trial_over_a_ceiling_trains_nothing(ray, playing, tuner, books):
    govern(tuner, cost=lambda config: {**COST, "params": 10**9}).fit()
    (result,) = playing.ran
    assert "score" not in result
    assert "lease_refused" in result
    assert amounts(books, "trials", "sweep:run", "run") == (0, 0, 0)


def test_a_sweep_whose_run_failed_is_closed_too(ray, playing, tuner, books):
    playing.fails = RuntimeError("a callback raised")
    with pytest.raises(RuntimeError, match="a callback raised"):
        govern(tuner).fit()
    assert books.sweep("run").state == "closed"


def test_a_sweep_that_can_not_be_closed_is_told_and_hides_no_error(ray, playing, tuner, monkeypatch, caplog):
    playing.fails = RuntimeError("a callback raised")
    monkeypatch.setattr("safety.actor.GovernorClient.close_sweep", silent)
    with pytest.raises(RuntimeError, match="a callback raised"):
        govern(tuner).fit()
    assert "sweep run: not closed, its leases end by themselves: no answer" in caplog.text


def silent(*_):
    raise safety.GovernorUnreachable("no answer")


def test_a_budget_of_another_sweep_that_counts_what_nobody_tells_of_this_one_is_an_error(
    ray, playing, tuner, tmp_path
):
    governor = connect(f"sqlite:///{tmp_path}/ledger.db")
    governor.open_sweep("other", limits(cluster={"train_flops": 10**12}))
    with pytest.raises(PriceError, match="a budget counts train_gflop"):
        govern(tuner, cost=None).fit()
    assert (playing.ran, governor.state("run")) == ([], "closed")
    govern(tuner).fit()
    assert len(playing.ran) == 1


def test_what_is_still_open_is_closed_with_what_its_last_report_told(ray, playing, tuner, books, monkeypatch):
    monkeypatch.setattr("safety.scheduler.GovernedScheduler.on_trial_complete", lambda *_: None)
    govern(tuner).fit()
    assert amounts(books, "train_gflop", "cluster", "run") == (0, 1, 0)


# --- which governor


def test_a_tuner_takes_the_clusters_governor_unless_it_names_a_ledger(ray, playing, tuner, tmp_path):
    other = f"sqlite:///{tmp_path}/other/ledger.db"
    connect(other)
    assert govern(tuner).governor().ledger_url() == other
    with pytest.raises(safety.LedgerError, match="this cluster's governor keeps the ledger"):
        govern(tuner, ledger=f"sqlite:///{tmp_path}/ledger.db").governor()
    assert govern(tuner, ledger=other).governor().ledger_url() == other
    with pytest.raises(safety.errors.IdentityError, match="its key 0000"):
        govern(tuner, governor_key="0" * 64).governor()


def test_a_tuner_has_the_audit_signed_into_the_folders_that_it_names(ray, tuner, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    govern(tuner, checkpoints=[tmp_path / "elsewhere"]).governor()
    office = ray.get_actor(NAME, NAMESPACE).actor._office
    assert len(office._threads) == 2


# --- what is trained


def test_a_trainable_that_was_registered_by_name_is_governed(monkeypatch):
    monkeypatch.setattr("safety.tuner.get_trainable_cls", {"mine": Training}.__getitem__)
    assert _class_of("mine") is Training


def test_a_trainer_of_ray_train_is_refused():
    with pytest.raises(ValueError, match="tuner: a trainer of Ray Train computes in processes that hold no"):
        _class_of(object.__new__(DataParallelTrainer))


def test_the_installed_meters_count_where_nobody_names_one(tuner, ray):
    governor = SimpleNamespace()
    assert govern(tuner, meter="auto")._terms(governor, limits()).meters == safety.meter.found_meters()
    assert govern(tuner)._terms(governor, limits()).meters is None


def test_the_gpus_memory_is_told_by_what_is_installed_where_nobody_names_another(tuner, ray):
    governor, own = SimpleNamespace(), SimpleNamespace()
    told = [
        govern(tuner, **options)._terms(governor, limits()).device_memory
        for options in ({}, {"device_memory": "auto"}, {"device_memory": own}, {"device_memory": None})
    ]
    assert told == [found_device_memories(), found_device_memories(), own, None]
