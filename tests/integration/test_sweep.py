"""Whole sweeps on a real Ray: gates, budgets, and trainables that misbehave."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from bench.disk_faults import frozen, may_freeze
from rsi_ray.disk import STATES, STUDY_FILE, WEIGHTS, open_folder
from rsi_ray.errors import SweepError
from rsi_ray.plan import Plan
from rsi_ray.records import Verdict
from rsi_ray.states import kept_in
from rsi_ray.study import read_study
from rsi_ray.sweep import run_sweep
from safety import Allow, Hold
from safety.checkpoints import CheckpointFile
from safety.lease import REPORTS as REPORTS_HEARD
from tests.integration.conftest import Maker, audit_kinds, budgets, gone, open_leases, workers
from tests.integration.jobs import NO_SCORES, REPORTS, BehavingJob, WidthSpace
from tests.integration.test_oversight import pid_of_governor

pytestmark = pytest.mark.ray


def test_a_sweep_trains_as_many_candidates_as_asked_and_settles_every_lease(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(), trials=6, concurrent=2)
    result = run_sweep(sweep)
    table = pd.read_parquet(sweep.folder / "results.parquet")
    assert (table["verdict"] == Verdict.MEASURED).sum() == 6
    assert result.ended == ""
    assert open_leases(sweep) == []
    assert budgets(sweep)["cluster", "train_gflop"].spent == 6 * 3
    assert budgets(sweep)["cluster", "concurrent_params"].spent == 0


def test_no_candidate_over_a_ceiling_is_ever_activated_and_refusals_are_told(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(), trials=8)
    table = run_sweep(sweep).table
    assert table[table["verdict"] == Verdict.MEASURED]["params"].max() <= 1000
    refused = table[table["verdict"] == Verdict.REFUSED]
    assert (refused["params"] > 1000).all()
    assert refused["rule"].eq("max_params").all()
    assert audit_kinds(sweep).count("activate") == 8


def test_a_model_that_is_larger_than_what_was_reserved_trains_no_step(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(lie=1, space=WidthSpace(widths=(5, 6))), trials=2)
    result = run_sweep(sweep)
    assert result.best is None
    assert result.table["rule"].eq("as_reserved").any()
    assert "activate" not in audit_kinds(sweep)
    assert open_leases(sweep) == []


def test_a_trainable_that_raises_ends_the_sweep_with_its_own_words(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(kind="raise"), trials=6, concurrent=2)
    result = run_sweep(sweep)
    assert result.ended == "3 candidates in a row failed"
    assert result.table["reason"].dropna().str.contains("ValueError: no such luck").any()
    assert open_leases(sweep) == []
    # two of three reports were begun in each, and one at least by a candidate that was cut off
    kinds = audit_kinds(sweep)
    spent = budgets(sweep)["cluster", "train_gflop"].spent
    assert 2 * kinds.count("fail") <= spent <= 2 * kinds.count("activate")


def test_a_score_that_is_none_is_an_incident_and_never_the_best(make_sweep: Maker):
    count = len(NO_SCORES)
    space = WidthSpace(widths=(1, count))
    sweep = make_sweep(BehavingJob(kind="no scores", space=space), trials=count, max_failures=count + 1)
    result = run_sweep(sweep)
    assert result.best is None
    failed = result.table[result.table["verdict"] == Verdict.FAILED]
    assert sorted(failed["config/width"]) == list(range(1, count + 1))
    assert failed["rule"].eq("finite_score").all()
    assert audit_kinds(sweep).count("incident") == count
    # of a trial that failed the sampler has heard no value
    study = read_study(sweep.folder / STUDY_FILE, sweep.name)
    assert [(trial.state.name, trial.values) for trial in study.trials] == [("FAIL", None)] * count


def test_a_trainable_that_never_reports_again_dies_at_its_time_limit(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(kind="hang", trial_seconds=3), trials=1)
    started = time.monotonic()
    result = run_sweep(sweep)
    assert time.monotonic() - started < 60
    assert result.best is None
    assert result.table["reason"].dropna().str.contains("time limit").any()
    assert open_leases(sweep) == []
    assert gone(workers(), 20)


def test_a_trainable_that_takes_more_memory_than_it_reserved_is_killed_and_told_of(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(kind="greedy"), trials=1)
    result = run_sweep(sweep)
    assert result.best is None
    kinds = audit_kinds(sweep)
    assert kinds.index("incident") < kinds.index("revoke")
    assert result.table["rule"].dropna().eq("within_memory").any()
    assert open_leases(sweep) == []
    assert gone(workers(), 20)


def test_a_capability_over_its_ceiling_stops_the_candidate(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(domain=0.6), trials=2)
    result = run_sweep(sweep)
    assert result.best is None
    assert result.table["rule"].dropna().eq("max_performance.danger").all()
    assert (result.table["verdict"] == Verdict.REFUSED).sum() == 2


def test_the_budget_of_trials_ends_a_sweep_that_wants_more(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(), trials=6, limits={"sweep": {"trials": 3}})
    result = run_sweep(sweep)
    assert (result.table["verdict"] == Verdict.MEASURED).sum() == 3
    assert budgets(sweep)["sweep", "trials"].spent == 3


def test_parameters_at_a_time_make_a_candidate_wait_not_fail(make_sweep: Maker):
    space = WidthSpace(widths=(28, 31))
    sweep = make_sweep(
        BehavingJob(space=space, seconds=0.2),
        trials=3,
        concurrent=2,
        limits={"sweep": {"concurrent_params": 1000}},
    )
    result = run_sweep(sweep)
    assert (result.table["verdict"] == Verdict.MEASURED).sum() == 3
    assert Verdict.REFUSED not in set(result.table["verdict"])


def test_the_baseline_is_trained_first_and_alone_and_its_gain_is_judged(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(), trials=5, concurrent=2, baseline={"width": 2})
    result = run_sweep(sweep)
    assert result.baseline is not None
    assert result.baseline["number"] == 0
    assert result.best is not None
    gain = result.best["score"] / result.baseline["score"] - 1
    assert isinstance(result.improvement, Hold if gain > 0.1 else Allow)
    assert ("hold" in audit_kinds(sweep)) == (gain > 0.1)


def test_a_space_that_is_used_up_ends_the_sweep_and_nothing_is_run_twice(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(space=WidthSpace(widths=(1, 3))), trials=10)
    result = run_sweep(sweep)
    measured = result.table[result.table["verdict"] == Verdict.MEASURED]
    assert sorted(measured["config/width"]) == [1, 2, 3]
    assert audit_kinds(sweep).count("activate") == 3


def test_a_space_whose_every_spec_is_over_a_ceiling_is_refused_before_anything_is_written(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(space=WidthSpace(widths=(33, 40))))
    with pytest.raises(SweepError, match="none of 1000 random specs is under every ceiling"):
        run_sweep(sweep)
    assert not sweep.folder.exists()


def test_weights_are_kept_of_the_best_alone(make_sweep: Maker):
    sweep = make_sweep(BehavingJob(), trials=5, keep_weights=2)
    table = run_sweep(sweep).table
    best = table[table["verdict"] == Verdict.MEASURED].nlargest(2, "score")
    assert {path.stem for path in (sweep.folder / "weights").iterdir()} == set(best["trial_id"])


def test_a_sweep_ends_when_its_time_is_over(make_sweep: Maker):
    plan = make_sweep(BehavingJob(seconds=1.0), trials=1000, seconds=30)
    started = time.monotonic()
    result = run_sweep(plan)
    assert time.monotonic() - started < 70
    assert (result.ended, result.used_up) == ("", "the time of 30 s is over")
    assert 1 <= (result.table["verdict"] == Verdict.MEASURED).sum() < 1000
    assert open_leases(plan) == []


def test_a_sweep_that_fills_its_share_of_the_disk_ends(make_sweep: Maker):
    job = BehavingJob(seconds=0.3, weights=100_000)
    plan = make_sweep(job, trials=1000, checkpoint_bytes=250_000, keep_weights=3)
    result = run_sweep(plan)
    assert "more than checkpoint_bytes allows" in result.ended
    assert sum(path.stat().st_size for path in (plan.folder / "weights").glob("*")) <= 3 * 100_000


def test_weights_that_are_not_kept_make_room_while_it_runs(make_sweep: Maker):
    job = BehavingJob(seconds=0.3, weights=100_000)
    plan = make_sweep(job, trials=12, checkpoint_bytes=700_000, keep_weights=1)
    result = run_sweep(plan)
    assert result.ended == ""
    assert (result.table["verdict"] == Verdict.MEASURED).sum() == 12


def test_so_many_failures_in_a_row_as_are_asked_for_end_a_sweep(make_sweep: Maker):
    result = run_sweep(make_sweep(BehavingJob(kind="raise"), trials=6, max_failures=1))
    assert result.ended == "1 candidates in a row failed"
    assert (result.table["verdict"] == Verdict.FAILED).sum() == 1


def stop_governor_for(seconds: float, plan: Plan) -> None:
    """Have it stand still for a while, once a candidate trains."""
    while not any(lease.state == "active" for lease in open_leases(plan)):
        time.sleep(0.1)
    governor = pid_of_governor()
    os.kill(governor, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(governor, signal.SIGCONT)


def test_a_candidate_that_dies_since_the_governor_is_silent_is_run_again(make_sweep: Maker):
    short = {"lease_seconds": 6, "grace_seconds": 2}
    plan = make_sweep(BehavingJob(seconds=4.0), limits=short, trials=2, max_failures=1)
    silence = threading.Thread(target=stop_governor_for, args=(12, plan), daemon=True)
    silence.start()
    result = run_sweep(plan)
    silence.join()
    assert result.ended == ""
    widths = {verdict: list(rows["config/width"]) for verdict, rows in result.table.groupby("verdict")}
    assert len(widths.pop(Verdict.MEASURED)) == 2
    # a trial that was given to the dead worker before that was known may have been, and is run again
    assert set(widths) <= {Verdict.CUT}
    assert audit_kinds(plan).count("forfeit") >= 1
    assert open_leases(plan) == []


def kill_a_worker(plan: Plan) -> None:
    """Kill the process of a candidate that has left a state."""
    while not list(kept_in(plan.folder / STATES)):
        time.sleep(0.02)
    (lease,) = [lease for lease in open_leases(plan) if lease.state == "active"]
    os.kill(int(lease.holder.partition("@")[0]), signal.SIGKILL)


def test_a_candidate_whose_worker_is_killed_goes_on_in_its_trial_and_is_not_counted_twice(make_sweep: Maker):
    short = {"lease_seconds": 3, "grace_seconds": 1, "sweep": {"trials": 2, "train_flops": 7 * 10**9}}
    job = BehavingJob(seconds=1.0)
    plan = make_sweep(job, limits=short, trials=2, max_failures=1, checkpoint_seconds=0)
    killer = threading.Thread(target=kill_a_worker, args=(plan,), daemon=True)
    killer.start()
    result = run_sweep(plan)
    killer.join()
    assert result.ended == ""
    assert list(result.table["verdict"]) == [Verdict.MEASURED] * 2
    kinds = audit_kinds(plan)
    assert (kinds.count("forfeit"), kinds.count("activate")) == (1, 3)
    # three reports of each, and the one that was under way, for which there was just room
    assert budgets(plan)["cluster", "train_gflop"].spent == 2 * 3 + 1
    assert budgets(plan)["sweep", "trials"].spent == 2
    assert not (plan.folder / STATES).exists()


def kill_one_of_two(plan: Plan) -> None:
    """Kill the process of a candidate when both workers are at work."""
    while len(working := [lease for lease in open_leases(plan) if lease.state == "active"]) < 2:
        time.sleep(0.02)
    os.kill(int(working[0].holder.partition("@")[0]), signal.SIGKILL)


def test_a_worker_that_is_lost_is_replaced_though_trials_are_shorter_than_the_start_of_one(make_sweep: Maker):
    bounds = {"max_params": 10**7, "max_flops": 10**9, "max_memory": 10**9}
    roomy = {"bounds": bounds, "lease_seconds": 3, "grace_seconds": 1}
    job = BehavingJob(seconds=0.1, space=WidthSpace(widths=(1, 3000)))
    plan = make_sweep(job, limits=roomy, trials=60, concurrent=2)
    killer = threading.Thread(target=kill_one_of_two, args=(plan,), daemon=True)
    killer.start()
    result = run_sweep(plan)
    killer.join()
    assert (result.table["verdict"] == Verdict.MEASURED).sum() == 60
    ledger = sa.create_engine(plan.ledger_url)
    with ledger.begin() as connection:
        holders = connection.scalars(sa.text("SELECT DISTINCT holder FROM leases WHERE holder != ''")).all()
    ledger.dispose()
    # a third did work; one that is started and stopped for ever would not
    assert len(holders) >= 3


def forfeit(plan: Plan, reports: int) -> None:
    """End the lease of a candidate that has told so many reports as if nobody had renewed it."""
    while not any(f'"{REPORTS_HEARD}": {reports}' in lease.told for lease in open_leases(plan)):
        time.sleep(0.1)
    ledger = sa.create_engine(plan.ledger_url)
    with ledger.begin() as connection:
        connection.execute(sa.text("UPDATE leases SET deadline_ms = began_ms WHERE state = 'active'"))
    ledger.dispose()


@pytest.mark.parametrize("reports", [1, REPORTS - 1])
def test_a_report_that_comes_after_its_lease_was_over_is_computed_again_in_its_trial(
    make_sweep: Maker, reports: int
):
    limits = {"lease_seconds": 30, "grace_seconds": 1, "sweep": {"trials": 1, "train_flops": 6 * 10**9}}
    plan = make_sweep(BehavingJob(seconds=3.0), limits=limits, trials=1, max_failures=1, checkpoint_seconds=0)
    silence = threading.Thread(target=forfeit, args=(plan, reports), daemon=True)
    silence.start()
    result = run_sweep(plan)
    silence.join()
    assert (result.ended, list(result.table["verdict"])) == ("", [Verdict.MEASURED])
    assert list(result.table["reports"]) == [REPORTS]
    kinds = audit_kinds(plan)
    assert (kinds.count("forfeit"), kinds.count("activate")) == (1, 2)
    assert budgets(plan)["cluster", "train_gflop"].spent == REPORTS + 1


def test_a_run_that_is_resumed_goes_on_in_the_middle_of_its_candidates(make_sweep: Maker):
    plan = make_sweep(BehavingJob(seconds=1.0), trials=1, checkpoint_seconds=0)

    def interrupt() -> None:
        while not list(kept_in(plan.folder / STATES)):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert run_sweep(plan).ended == "interrupted by SIGINT"
    (kept,) = kept_in(plan.folder / STATES)
    spent = budgets(plan)["cluster", "train_gflop"].spent
    result = run_sweep(replace(plan, resumed=True))
    (measured,) = (result.table["verdict"] == Verdict.MEASURED).to_numpy().nonzero()[0]
    assert result.table["reports"][measured] == REPORTS
    assert budgets(plan)["cluster", "train_gflop"].spent == spent + REPORTS - kept.reports
    assert not (plan.folder / STATES).exists()


def test_a_sweep_waits_for_a_storage_that_is_away_and_loses_nothing(make_sweep: Maker):
    if not may_freeze():
        pytest.skip("takes root, and a file system with attributes")
    plan = make_sweep(BehavingJob(seconds=0.3), trials=6, concurrent=2, max_failures=1, checkpoint_seconds=0)

    study, away_at = plan.folder / STUDY_FILE, []

    def take_away() -> None:
        while not list((plan.folder / WEIGHTS).glob("*.safetensors")):
            time.sleep(0.05)
        with frozen(plan.folder):
            time.sleep(8)
            away_at.append(study.stat().st_size)

    away = threading.Thread(target=take_away, daemon=True)
    away.start()
    result = run_sweep(plan)
    away.join()
    assert study.stat().st_size > away_at[0]
    assert result.ended == ""
    assert list(result.table["verdict"]) == [Verdict.MEASURED] * 6
    assert audit_kinds(plan).count("activate") == 6
    assert budgets(plan)["cluster", "train_gflop"].spent == 6 * REPORTS
    assert open_leases(plan) == []


def test_a_run_that_another_process_runs_is_not_resumed(make_sweep: Maker):
    plan = make_sweep(BehavingJob(), trials=1)
    with (
        open_folder(plan),
        pytest.raises(SweepError, match="another process runs it"),
        open_folder(replace(plan, resumed=True)),
    ):
        pass


def test_a_sweep_signs_into_the_folder_that_it_names_and_does_not_begin_where_it_can_not(
    make_sweep: Maker, tmp_path: Path
):
    folder = tmp_path / "elsewhere"
    plan = make_sweep(BehavingJob(), trials=1, checkpoints=(folder,))
    with pytest.raises(SweepError, match="no such folder on the governor's host"):
        run_sweep(plan)
    folder.mkdir()
    run_sweep(plan)
    place = CheckpointFile(folder, "ledger.db")
    until = time.monotonic() + 10
    while not place.read().newest and time.monotonic() < until:
        time.sleep(0.05)
    assert place.read().newest
