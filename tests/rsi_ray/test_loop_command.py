"""The loop on the command line before it runs: who decides, what is refused, the exit code."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from rsi_ray import loop_command
from rsi_ray.approvers import Nobody, Policy, PolicyApprover, TerminalApprover, local_signer
from rsi_ray.config import load_config
from rsi_ray.config_sections import RecursionConfig
from rsi_ray.errors import SweepError
from rsi_ray.loop import Ending, Why
from rsi_ray.loop_command import Approve, Asked, _approver, _exit_code, _signer
from rsi_ray.recursion import Outcome
from safety import DocumentError
from safety.identity import make_identity

LIMITS = {"bounds": {"max_params": 10e6, "max_flops": 1e12, "max_memory": 10e9}}
JOB = {"space": {"depth": [1, 2], "widths": [32]}, "task": {"holdout_size": 32}, "limits": LIMITS}


def console(*, is_terminal=False):
    return Console(file=io.StringIO(), force_terminal=is_terminal)


def config(folder: Path, **changes):
    path = folder / "loop.yaml"
    path.write_text(yaml.safe_dump({**JOB, "storage": str(folder / "runs"), **changes}))
    return load_config(path)


def named(folder: Path):
    """A file whose limits name ann, and her key."""
    key = folder / "ann.key"
    public = make_identity(key).public
    return config(folder, limits={**LIMITS, "approval": {"approvers": {"ann": public}}}), key


@pytest.fixture
def signer(tmp_path):
    return local_signer(tmp_path, "ann")


def chosen(asked, signer, section=None, **more):
    return _approver(section or RecursionConfig(), asked, signer, console(**more))


def test_where_the_limits_name_nobody_this_storages_own_key_signs(tmp_path):
    signer, key = _signer(config(tmp_path), Asked())
    assert key == tmp_path / "runs" / "approver.key"
    assert signer is not None
    assert _signer(config(tmp_path), Asked())[0].identity.public == signer.identity.public


def test_where_the_limits_name_approvers_only_their_key_signs(tmp_path):
    job, key = named(tmp_path)
    signer, path = _signer(job, Asked(key=key))
    assert (signer.name, path) == ("ann", key)
    assert _signer(job, Asked()) == (None, Path("FILE"))
    other = tmp_path / "bob.key"
    make_identity(other)
    with pytest.raises(SweepError, match="of no approver whom the limits name"):
        _signer(job, Asked(key=other))
    assert not (tmp_path / "runs" / "approver.key").exists()


def test_a_key_for_limits_that_name_nobody_is_refused(tmp_path):
    with pytest.raises(SweepError, match="the limits name no approvers; leave it out"):
        _signer(config(tmp_path), Asked(key=tmp_path / "x"))


def test_ask_asks_on_this_terminal_and_wait_waits(signer):
    assert isinstance(chosen(Asked(approve=Approve.ASK), signer), TerminalApprover)
    assert isinstance(chosen(Asked(approve=Approve.WAIT), signer), Nobody)


def test_left_out_it_asks_on_a_terminal_and_waits_elsewhere(signer, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert isinstance(chosen(Asked(), signer), Nobody)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert isinstance(chosen(Asked(), signer, is_terminal=True), TerminalApprover)


def test_whoever_has_no_key_of_a_named_approver_decides_nothing():
    assert isinstance(chosen(Asked(), None), Nobody)
    for approve in (Approve.ASK, Approve.POLICY):
        with pytest.raises(SweepError, match=f"approve: {approve} needs --key"):
            chosen(Asked(approve=approve), None)


def test_a_policy_is_the_files_or_the_one_that_is_named(signer, tmp_path):
    asked = Asked(approve=Approve.POLICY)
    with pytest.raises(SweepError, match="policy: missing; expected --policy FILE, or a section"):
        chosen(asked, signer)
    own = Policy(max_improvement=0.2)
    found = chosen(asked, signer, RecursionConfig(policy=own))
    assert isinstance(found, PolicyApprover)
    assert found.policy == own
    path = tmp_path / "policy.yaml"
    path.write_text("max_improvement: 0.3\n")
    found = chosen(Asked(approve=Approve.POLICY, policy=path), signer, RecursionConfig(policy=own))
    assert found.policy.max_improvement == 0.3
    path.write_text("max_improvement: -1\n")
    with pytest.raises(DocumentError, match=r"policy.yaml:1: max_improvement"):
        chosen(Asked(approve=Approve.POLICY, policy=path), signer)


def test_a_loop_without_a_base_model_is_refused(tmp_path):
    job = config(tmp_path, recursion={"generations": 1})
    with pytest.raises(SweepError, match="baseline: missing; expected the parameters of the base model"):
        loop_command.run(job, Asked(), console(), resume=None, about={})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("why", "text", "code"),
    [
        (Why.COMPLETE, "", 0),
        (Why.CONVERGED, "", 0),
        (Why.REJECTED, "", 0),
        (Why.WAITS, "", 3),
        (Why.HELD, "", 3),
        (Why.NOTHING, "", 1),
        (Why.SHUT_DOWN, "", 1),
        (Why.STOPPED, "killed: a fire", 1),
        (Why.STOPPED, "interrupted by SIGINT", 130),
    ],
)
def test_the_exit_code_says_how_it_ended(tmp_path, why, text, code):
    ending = Ending(why=why, text=text)
    outcome = Outcome(folder=tmp_path, ending=ending, champions=(), params=(), artifact=None)
    assert _exit_code(outcome) == code
