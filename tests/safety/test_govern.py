"""`safety.govern` before anything runs: what it takes, what it refuses, what it puts around."""

import cloudpickle
import pytest
from ray import tune
from ray.tune.impl.placeholder import create_resolvers_map, inject_placeholders
from ray.tune.result import DEFAULT_METRIC
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.search_generator import SearchGenerator
from ray.tune.stopper import MaximumIterationStopper

import safety
from safety import DocumentError, PriceError
from safety.scheduler import GovernedScheduler
from safety.search import GovernedSearch, PatientVariants
from safety.tune import Governance
from safety.tuner import GovernedTuner
from safety.wiring import governed, governed_stop, metric_of
from tests.safety.fakes import FakeAuthority, claim
from tests.safety.test_names import REFUSED
from tests.safety.test_tune_plugins import FakeSearcher

LIMITS = {"bounds": {"max_params": 10, "max_flops": 10, "max_memory": 10}}
BUDGET = {**LIMITS, "sweep": {"train_flops": 1e12}}


def function(config):
    pass


@pytest.fixture
def tuner(tmp_path):
    run = tune.RunConfig(name="run", storage_path=str(tmp_path))
    return tune.Tuner(function, param_space={"width": tune.randint(1, 5)}, run_config=run)


@pytest.fixture
def governance():
    return Governance(authority=FakeAuthority(), sweep="s", price=lambda config: claim())


# --- what is taken


def test_a_governed_tuner_is_another_and_the_first_is_what_it_was(tuner):
    before = dict(vars(tuner._local_tuner))
    made = safety.govern(tuner, LIMITS)
    assert isinstance(made, GovernedTuner)
    assert isinstance(made, tune.Tuner)
    assert made.sweep == "run"
    assert dict(vars(tuner._local_tuner)) == before


def test_the_limits_may_be_a_file(tuner, tmp_path):
    (tmp_path / "limits.yaml").write_text("bounds: {max_params: 10, max_flops: 10, max_memory: 10}")
    assert safety.govern(tuner, tmp_path / "limits.yaml", sweep="mine").sweep == "mine"
    with pytest.raises(DocumentError):
        safety.govern(tuner, {"bounds": {}})


def test_a_ledger_of_its_own_lies_beside_the_run(tuner, tmp_path):
    assert safety.govern(tuner, LIMITS)._storage() == tmp_path


def test_a_budget_of_what_nobody_tells_is_an_error_at_once(tuner):
    for told in ({}, {"cost": lambda config: {"params": config["width"]}}):
        with pytest.raises(PriceError, match="a budget counts train_gflop, and nothing tells it"):
            safety.govern(tuner, BUDGET, **told)
    safety.govern(tuner, BUDGET, lambda config: {"train_flops": config["width"]})


def test_a_budget_of_time_wants_to_know_how_long_a_trial_takes(tuner):
    limits = {**LIMITS, "cluster": {"wall_seconds": 100}}
    with pytest.raises(PriceError, match="trial_seconds="):
        safety.govern(tuner, limits)
    safety.govern(tuner, limits, trial_seconds=5)


def test_a_cost_that_raises_for_one_configuration_is_told_and_no_error(tuner, caplog):
    safety.govern(tuner, LIMITS, lambda config: 1 // 0)
    assert "cost: raised ZeroDivisionError" in caplog.text


def test_a_space_that_can_not_be_sampled_alone_is_priced_later(tmp_path):
    run = tune.RunConfig(storage_path=str(tmp_path))
    space = {"width": tune.sample_from(lambda spec: spec.config.gone)}
    safety.govern(tune.Tuner(function, param_space=space, run_config=run), BUDGET, lambda config: {})


def test_a_client_and_what_computes_elsewhere_are_refused(tuner):
    tuner._is_ray_client = True
    with pytest.raises(ValueError, match="tuner: a Tuner of a Ray client runs elsewhere"):
        safety.govern(tuner, LIMITS)


def test_there_is_nothing_else_of_this_name():
    with pytest.raises(AttributeError, match="has no attribute 'gouvern'"):
        _ = safety.gouvern


# --- what is put around


def test_tunes_own_search_waits_for_what_is_held_and_keeps_its_concurrency(governance):
    config = tune.TuneConfig(max_concurrent_trials=3)
    made = governed(config, governance, None)
    assert isinstance(made.search_alg, PatientVariants)
    assert (made.search_alg.max_concurrent, made.max_concurrent_trials) == (3, None)
    assert isinstance(made.scheduler, GovernedScheduler)
    assert (config.search_alg, config.scheduler, config.max_concurrent_trials) == (None, None, 3)


def test_schedulers_and_searchers_by_name_are_made(governance):
    made = governed(tune.TuneConfig(scheduler="async_hyperband", search_alg="random"), governance, None)
    assert isinstance(made.scheduler._inner, ASHAScheduler)
    assert isinstance(made.search_alg, BasicVariantGenerator)


def test_a_searcher_is_wrapped_wherever_it_is(governance):
    limited = ConcurrencyLimiter(FakeSearcher(), max_concurrent=2)
    made = governed(tune.TuneConfig(search_alg=limited), governance, None).search_alg
    assert isinstance(made, GovernedSearch)
    assert made.searcher is limited
    generator = SearchGenerator(FakeSearcher())
    inside = governed(tune.TuneConfig(search_alg=generator), governance, None).search_alg
    assert isinstance(inside.searcher, GovernedSearch)
    assert isinstance(generator.searcher, FakeSearcher)


def test_a_proposal_is_completed_by_constants_and_objects_of_the_space(governance):
    space = {"width": tune.randint(1, 5), "layer": tune.choice([int, dict]), "kind": list, "epochs": 3}
    search = governed(tune.TuneConfig(search_alg=FakeSearcher()), governance, space).search_alg
    as_tune_shows_it = inject_placeholders({"layer": tune.choice([int, dict])}, create_resolvers_map())
    proposed = {"width": 2, "layer": as_tune_shows_it["layer"].categories[1]}
    assert search._complete(proposed) == {"width": 2, "layer": dict, "kind": list, "epochs": 3}


@pytest.mark.parametrize(
    ("config", "metric"),
    [
        ({"metric": "a", "mode": "max"}, "a"),
        ({"scheduler": ASHAScheduler(metric="b", mode="max")}, "b"),
        ({"search_alg": FakeSearcher()}, "score"),
        ({}, None),
        ({"scheduler": ASHAScheduler(metric=DEFAULT_METRIC, mode="max")}, None),
    ],
)
def test_the_metric_is_found_wherever_it_is_said(config, metric):
    assert metric_of(tune.TuneConfig(**config)) == metric


@pytest.mark.parametrize(
    "stop",
    [
        {"training_iteration": 2},
        {"eval/step": 2},
        lambda trial_id, result: result["training_iteration"] >= 2,
        MaximumIterationStopper(2),
        [MaximumIterationStopper(2), MaximumIterationStopper(9)],
    ],
)
def test_whatever_stops_a_trial_still_does(governance, stop):
    with governed_stop(stop, governance, None) as stopper:
        stops = [stopper("t1", {"training_iteration": step, "eval": {"step": step}}) for step in (1, 2)]
        assert stops == [False, True]
        assert not stopper.stop_all()


def test_a_report_that_is_denied_stops_its_trial_whatever_else_does(governance):
    governance.authority.verdicts["s/t1"] = safety.Deny("finite_score", "no")
    with governed_stop(None, governance, "score") as stopper:
        assert stopper("t1", {"score": float("nan")})


def test_what_can_not_stop_a_trial_is_an_error(governance):
    with pytest.raises(ValueError, match="stop: expected criteria"), governed_stop(3, governance, None):
        raise AssertionError("ran")


def test_a_stopper_comes_back_as_the_one_of_the_sweep_that_runs_here(governance):
    with governed_stop(MaximumIterationStopper(2), governance, None) as stopper:
        pickled = cloudpickle.dumps(stopper)
        back = cloudpickle.loads(pickled)
        assert back._stoppers[0] is stopper._stoppers[0]
        assert not back("t1", {"training_iteration": 1})
    # without its sweep it stops everything
    back = cloudpickle.loads(pickled)
    assert back("t1", {"training_iteration": 1})
    assert back.stop_all()


def test_a_scheduler_of_ones_own_is_kept(governance):
    scheduler = FIFOScheduler()
    assert governed(tune.TuneConfig(scheduler=scheduler), governance, None).scheduler._inner is scheduler


@pytest.mark.parametrize("what", ["sweep", "lineage"])
@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_a_name_that_is_not_plain_is_told_before_anything_runs(tuner, what, name):
    if what == "sweep" and not name:
        return  # the run's own
    with pytest.raises(ValueError, match=rf"{what}: .*: expected 1 to 127 letters"):
        safety.govern(tuner, LIMITS, **{what: name})
