"""Sweeps and loops whose workers share no folder with their driver: all goes through an S3 server."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyarrow import fs
from ray import tune

from rsi_ray.approvers import KEY_FILE
from rsi_ray.artifact_store import ArtifactStore
from rsi_ray.errors import ArtifactStoreError
from rsi_ray.mirror import SECONDS, bring_back
from rsi_ray.observer import Snapshot
from rsi_ray.runs import old_run
from rsi_ray.samplers import SAMPLERS
from rsi_ray.sweep import quiet_tune, run_sweep
from rsi_ray.tune_storage import CheckpointStorage
from tests.conftest import Command
from tests.integration.conftest import Maker
from tests.integration.jobs import BehavingJob
from tests.integration.test_recursion import job as loop_file
from tests.integration.test_recursion import started
from tests.s3_server import S3Server, s3_server
from tests.small_sweep import SMALL_SWEEP

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def store(server: S3Server, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(uri=server.uri(tmp_path.name))


@pytest.fixture
def make_stored(make_sweep: Maker, store: ArtifactStore, tmp_path: Path) -> Maker:
    return partial(make_sweep, folder=tmp_path / "runs" / "tested", artifacts=store)


def test_workers_write_into_the_store_alone_and_the_driver_brings_what_is_kept(
    make_stored: Maker, store: ArtifactStore
):
    seen: list[bool] = []
    plan = make_stored(BehavingJob(weights=100, seconds=0.2), trials=4, keep_weights=2)

    def watch(snapshot: Snapshot) -> None:
        del snapshot
        seen.append((plan.folder / "weights").exists())

    result = run_sweep(plan, watch)
    assert list(result.table["verdict"]) == ["measured"] * 4
    assert not any(seen)
    kept = sorted(path.name for path in (plan.folder / "weights").iterdir())
    assert len(kept) == 2
    assert store.at("tested/weights").sizes() == dict.fromkeys(kept, 100)
    left = {"run.json", "study.log", "results.parquet", "weights"}
    assert left <= set(store.at("tested").names()) <= {*left, "tune"}


class Failing(tune.Trainable):
    """Fails once, at its third step, and tells what it was restored from."""

    def setup(self, config: dict[str, Any]) -> None:
        self.restored = 0

    def step(self) -> dict[str, Any]:
        if self.training_iteration == 2 and not self.restored:
            raise ValueError("no such luck")
        return {"restored": self.restored, "done": self.training_iteration == 3}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "state").write_text(str(self.training_iteration))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.restored = int((Path(checkpoint) / "state").read_text())


def test_a_trial_that_failed_goes_on_from_its_checkpoint_in_the_store_and_older_ones_are_gone(
    fresh_governor: None, store: ArtifactStore, tmp_path: Path
):
    files = fs.PyFileSystem(CheckpointStorage(store, tmp_path / "driver"))
    with quiet_tune():
        (result,) = tune.Tuner(
            Failing,
            run_config=tune.RunConfig(
                name="tune",
                storage_path=store.opened()[1],
                storage_filesystem=files,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        ).fit()
    assert result.metrics["restored"] == 2
    assert not list((tmp_path / "driver").rglob("checkpoint_*"))
    until = time.monotonic() + 20
    while len(left := list(store.sizes())) > 1 and time.monotonic() < until:
        time.sleep(0.2)
    assert [Path(name).name for name in left] == ["state"]


def test_a_run_goes_on_where_its_folder_is_gone(make_stored: Maker, store: ArtifactStore, tmp_path: Path):
    plan = make_stored(BehavingJob(weights=10), trials=3)
    before = run_sweep(plan)
    new = tmp_path / "new"
    bring_back(store, new, plan.name)
    again = replace(plan, trials=5, folder=new / "any", sampler=SAMPLERS["tpe"](0))
    resumed = old_run(again, plan.name)
    after = run_sweep(resumed)
    assert after.folder == new / plan.name
    assert list(after.table["trial_id"])[:3] == list(before.table["trial_id"])
    assert list(after.table["verdict"]) == ["measured"] * 5
    assert store.at("tested").sizes()["study.log"] == (new / plan.name / "study.log").stat().st_size


def test_a_server_that_stands_still_for_a_while_costs_no_candidate(
    make_stored: Maker, server: S3Server, store: ArtifactStore, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING)
    plan = make_stored(BehavingJob(weights=100, seconds=0.5), trials=6)
    paused = threading.Event()

    def watch(snapshot: Snapshot) -> None:
        if len(snapshot.study.trials) >= 2 and not paused.is_set():
            paused.set()
            server.pause()
            threading.Timer(15, server.go_on).start()

    try:
        result = run_sweep(plan, watch)
    finally:
        server.go_on()
    assert paused.is_set()
    assert list(result.table["verdict"]) == ["measured"] * 6
    assert len(store.at("tested/weights").names()) == plan.keep_weights


def test_a_store_that_takes_nothing_is_refused_before_anything_begins(make_stored: Maker, server: S3Server):
    nowhere = ArtifactStore(uri=server.uri("x").replace("bucket", "nobucket"))
    plan = make_stored(BehavingJob(), artifacts=nowhere)
    with pytest.raises(ArtifactStoreError, match="NO_SUCH_BUCKET"):
        run_sweep(plan)
    assert not plan.folder.exists()


def test_a_driver_that_is_killed_is_followed_by_one_on_an_empty_folder(
    on_shared_ray: None, command_here: Command, store: ArtifactStore, tmp_path: Path
):
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    text = SMALL_SWEEP.format(trials=6, ledger=ledger, storage=tmp_path / "old")
    (tmp_path / "sweep.yaml").write_text(f"{text}concurrent: 1\nartifacts: {store.uri}\n")
    with started(tmp_path, "run", "sweep.yaml") as driver:
        until = time.monotonic() + 120
        while len(trained := weights_in(store)) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(SECONDS)  # a round of the mirror
        driver.kill()
    assert len(trained) >= 2, (tmp_path / "out").read_text()
    run = store.names()[0]
    new = tmp_path / "new"
    code, out, err = command_here("run", "--resume", run, "--artifacts", store.uri, "--storage", str(new))
    assert code == 0, out + err
    table = pd.read_parquet(new / run / "results.parquet")
    assert (table["verdict"] == "measured").sum() == 6
    assert set(trained) <= set(table["trial_id"])


def weights_in(store: ArtifactStore) -> list[str]:
    """Candidates of any run whose weights are there."""
    names = store.sizes()
    return [Path(name).stem for name in names if Path(name).parent.name == "weights"]


def test_the_loop_promotes_what_its_workers_have_put_into_the_store_and_goes_on_from_there(
    on_shared_ray: None, command_here: Command, store: ArtifactStore, tmp_path: Path
):
    file = loop_file(tmp_path, artifacts=store.uri)
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    file.write_text(f"{file.read_text()}ledger: {ledger}\n")
    code, out, err = command_here("run", str(file), "--approve", "policy", "--generations", "1")
    assert code == 0, out + err
    (run,) = [path.parent.name for path in (tmp_path / "rsi_results").glob("*/loop.json")]
    champions = store.at("champions/line").names()
    assert {"current.json"} < set(champions)
    # people keep their keys: no store has them
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "rsi_results" / KEY_FILE, tmp_path / "new")
    words = ("--artifacts", store.uri, "--storage", str(tmp_path / "new"), "--approve", "policy")
    code, out, err = command_here("run", "--resume", run, *words, "--generations", "2")
    assert code == 0, out + err
    told = json.loads((tmp_path / "new" / "champions" / "line" / "current.json").read_bytes())
    assert told["generation"] == 2
