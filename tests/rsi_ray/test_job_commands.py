"""Commands for jobs, with a cluster that only writes down what it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rsi_ray import job_commands
from rsi_ray.jobs import Job
from tests.conftest import Command

SWEEP = {
    "name": "tiny",
    "space": {"depth": [1, 2], "widths": [32, 48]},
    "limits": {"bounds": {"max_params": 10e6, "max_flops": 1e12, "max_memory": 10e9}},
}
ENDED = Job(
    id="tiny-1",
    state="SUCCEEDED",
    told="It went well.",
    started_ms=0,
    ended_ms=1000,
    exit_code=0,
    metadata={},
)


@dataclass
class FakeJobs:
    """Takes every job, which then has ended."""

    ended: Job = ENDED
    printed: Sequence[str] = ("hello\n",)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    carried: set[str] = field(default_factory=set)

    def submit(self, entrypoint: str, *, id: str, folder: Path, modules: Sequence[Path], **more: Any) -> str:
        self.carried = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert all((module / "__init__.py").is_file() for module in modules)
        assert not [path for module in modules for path in module.rglob("__pycache__")]
        self.submitted.append(
            {"entrypoint": entrypoint, "id": id, "modules": [m.name for m in modules], **more}
        )
        return id

    def follow(self, id: str, tell: Callable[[str], None]) -> Job:
        for chunk in self.printed:
            tell(chunk)
        return self.ended

    def job(self, id: str) -> Job:
        return self.ended

    stop = job


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    fake = FakeJobs()
    monkeypatch.setattr(job_commands, "jobs_at", lambda address: fake)
    return fake


def submit(folder: Path, command_here: Command, *words: str, **changes: Any) -> tuple[int, str, str]:
    (folder / "my sweep.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))
    return command_here("submit", "my sweep.yaml", *words)


@pytest.mark.parametrize(
    ("words", "changes", "expected"),
    [
        ((), {}, "python3 -m rsi_ray run 'my sweep.yaml' --storage \"$HOME\"/rsi_results"),
        (("--storage", "~/runs"), {}, "python3 -m rsi_ray run 'my sweep.yaml' --storage \"$HOME\"/runs"),
        (("--storage", "~"), {}, "python3 -m rsi_ray run 'my sweep.yaml' --storage \"$HOME\""),
        (("--storage", "/data/a b"), {}, "python3 -m rsi_ray run 'my sweep.yaml' --storage '/data/a b'"),
        ((), {"storage": "/data/runs"}, "python3 -m rsi_ray run 'my sweep.yaml' --storage /data/runs"),
        (
            ("--python", "/opt/py", "--resume", "tiny-1", "--storage", "/d", "--", "--trials", "3; reboot"),
            {},
            "/opt/py -m rsi_ray run --resume tiny-1 --storage /d --trials '3; reboot'",
        ),
        (
            ("--resume", "tiny-1", "--storage", "/d"),
            {"artifacts": "s3://b/x?a=b&c=d"},
            "python3 -m rsi_ray run --resume tiny-1 --artifacts 's3://b/x?a=b&c=d' --storage /d",
        ),
    ],
)
def test_a_job_is_the_command_that_runs_the_file_there(
    tmp_path: Path,
    command_here: Command,
    jobs: FakeJobs,
    words: tuple[str, ...],
    changes: dict[str, Any],
    expected: str,
):
    code, out, err = submit(tmp_path, command_here, *words, **changes)
    assert (code, err) == (0, "")
    (one,) = jobs.submitted
    assert one["entrypoint"] == expected
    assert one["id"].startswith("tiny-")
    assert one["modules"] == ["rsi_ray", "search_spaces", "safety"]
    assert one["metadata"]["file"] == "my sweep.yaml"
    assert jobs.carried == {"my sweep.yaml"}
    assert f"`rsi-ray stop {one['id']}` ends it" in out
    assert out.endswith("hello\n")


def test_a_key_in_the_artifacts_is_told_to_nobody(tmp_path: Path, command_here: Command, jobs: FakeJobs):
    code, out, err = submit(tmp_path, command_here, artifacts="s3://KEY:HIDDEN@bucket/x")
    assert (code, jobs.submitted) == (2, [])
    assert "my sweep.yaml:1: artifacts: s3://bucket/x: there is a key in it" in err
    assert "HIDDEN" not in out + err


@pytest.mark.parametrize(
    "words",
    [
        ("--artifacts", "s3://K:HIDDEN@b"),
        ("--artifacts=s3://K:HIDDEN@b",),
        ("--artifacts", "s3://b", "--artifacts", "s3://K:HIDDEN@b"),
    ],
)
def test_a_key_among_the_options_is_told_to_nobody(
    tmp_path: Path, command_here: Command, jobs: FakeJobs, words: tuple[str, ...]
):
    code, out, err = submit(tmp_path, command_here, "--", "--trials", "3", *words)
    assert (code, jobs.submitted) == (2, [])
    assert "--artifacts: s3://b: there is a key in it" in err
    assert "HIDDEN" not in out + err


@pytest.mark.parametrize("words", [("status",), ("stop",), ("logs",), ("logs", "--follow")])
@pytest.mark.parametrize("id", ["", "..", "a/b", "a?b", "a#b"])
def test_what_is_no_jobs_id_is_refused(
    command_here: Command, jobs: FakeJobs, words: tuple[str, ...], id: str
):
    code, _, err = command_here(*words, id)
    assert (code, err.count("\n")) == (2, 1)
    assert "expected an id, as `submit` has told it" in err


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (ENDED, 0),
        (replace(ENDED, state="FAILED", exit_code=3), 3),
        (replace(ENDED, state="FAILED", exit_code=None), 1),
        (replace(ENDED, state="STOPPED", exit_code=None), 1),
    ],
)
def test_the_exit_code_is_that_of_the_run(
    tmp_path: Path, command_here: Command, jobs: FakeJobs, ended: Job, code: int
):
    jobs.ended = ended
    assert submit(tmp_path, command_here)[0] == code


def test_a_job_that_nobody_follows_is_left_to_itself(tmp_path: Path, command_here: Command, jobs: FakeJobs):
    jobs.ended = replace(ENDED, state="FAILED", exit_code=1)
    code, out, _ = submit(tmp_path, command_here, "--no-follow")
    assert (code, "hello" in out) == (0, False)


def test_ctrl_c_leaves_the_job_running(
    tmp_path: Path, command_here: Command, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(id: str, tell: Callable[[str], None]) -> Job:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", interrupted)
    code, out, _ = submit(tmp_path, command_here)
    assert code == 130
    assert "goes on; `rsi-ray logs tiny-" in out


def test_what_steers_a_terminal_is_spelled_out(tmp_path: Path, command_here: Command, jobs: FakeJobs):
    jobs.printed = ["one\ttwo\n\x1b[2J", "three\n"]
    assert submit(tmp_path, command_here)[1].endswith("one\ttwo\n\\x1b[2Jthree\n")


def test_data_that_is_the_clusters_alone_is_not_asked_for_here(
    tmp_path: Path, command_here: Command, jobs: FakeJobs
):
    code, out, err = submit(tmp_path, command_here, task={"kind": "text_files", "paths": ["/no/such/data"]})
    assert (code, err) == (0, "")
    assert "Not checked here, since it is not on this machine: /no/such/data" in out
    assert len(jobs.submitted) == 1


def test_a_file_that_leaves_out_what_has_a_default_is_called_as_its_sweep_is_there(
    tmp_path: Path, command_here: Command, jobs: FakeJobs
):
    far = {"kind": "text_files", "paths": ["/no/such/data"]}
    assert submit(tmp_path, command_here, task=far, name=None, storage=None)[0] == 0
    (one,) = jobs.submitted
    assert one["id"].startswith("sweep-")
    assert one["entrypoint"].endswith('--storage "$HOME"/rsi_results')


def test_a_file_with_an_absolute_path_that_is_here_too_is_told_not_to_be_carried(
    tmp_path: Path, command_here: Command, jobs: FakeJobs
):
    (tmp_path / "text.txt").write_text("some text " * 100)
    task = {"kind": "text_files", "paths": [str(tmp_path / "text.txt"), "/no/such/data"]}
    out = submit(tmp_path, command_here, task=task)[1]
    assert f"Not carried, since its path is absolute; the cluster's own is used: {tmp_path}/text.txt" in out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trials": -1}, "my sweep.yaml:"),
        ({"ledger": "sqlite:///ledger.db"}, "would lie in the job's own folder"),
        (
            {"ledger": "postgresql://u:p@ss:word@h/db"},
            "ledger (a URL that can't be parsed): not a database URL",
        ),
        ({"task": {"kind": "text_files", "paths": ["missing.txt"]}}, "missing.txt"),
    ],
)
def test_what_is_wrong_is_told_here_and_never_submitted(
    tmp_path: Path, command_here: Command, jobs: FakeJobs, changes: dict[str, Any], expected: str
):
    code, _, err = submit(tmp_path, command_here, **changes)
    assert (code, err.count("\n")) == (2, 1)
    assert expected in err
    assert jobs.submitted == []


def test_a_jobs_state_is_a_line_or_json(command_here: Command, jobs: FakeJobs):
    line = (
        "Job tiny-1: succeeded, begun 1970-01-01T00:00:00.000Z, ended 1970-01-01T00:00:01.000Z, exit code 0. "
    )
    assert command_here("status", "tiny-1")[1] == f"{line}It went well.\n"
    assert command_here("stop", "tiny-1")[1] == f"{line}It went well.\n"
    assert json.loads(command_here("status", "tiny-1", "--json")[1])["state"] == "SUCCEEDED"
