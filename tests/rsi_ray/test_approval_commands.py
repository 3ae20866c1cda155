"""The commands by which people approve: a kill switch lifted, limits loosened."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety import Champion, Ledger
from safety.checkpoints import CheckpointFile
from safety.identity import KEY_FILE, identity_in
from tests.conftest import Command, Printed
from tests.safety.approvers import approval
from tests.safety.fakes import limits

FILE = """\
bounds: {{max_params: {params}, max_flops: 1e6, max_memory: 1e6}}
approval:
  approvers: {{ann: {ann}, bob: {bob}}}
  quorum: 2
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    opened.open_sweep("s", limits())
    yield opened
    opened.close()


@pytest.fixture
def keys(tmp_path: Path, command_here: Command) -> dict[str, str]:
    """Public keys of two approvers, whose private ones lie in files of their names."""
    return {name: command_here("approvals", "key", "--out", name)[1].strip() for name in ("ann", "bob")}


@pytest.fixture
def bound(ledger: Ledger, command: Printed, keys: dict[str, str], tmp_path: Path) -> Ledger:
    """A ledger whose limits name two approvers, both of whom must agree."""
    assert write(tmp_path, keys, 99, command, "tighten")[0] == 0
    return ledger


def write(folder: Path, keys: dict[str, str], params: int, command: Printed, verb: str) -> tuple[int, str]:
    (folder / "limits.yaml").write_text(FILE.format(params=params, **keys))
    return command("limits", verb, "limits.yaml", "--by", "dan")


def name_in(printed: str) -> str:
    found = re.search(r"request ([0-9a-f]{12})", printed)
    assert found
    return found[1]


def decided(command: Printed, verb: str, name: str, who: str) -> tuple[int, str]:
    return command("approvals", verb, name, "--key", who, "--reason", f"{who} has looked")


def test_a_key_is_made_once_and_for_its_owner_alone(command_here: Command, tmp_path: Path):
    code, public, _ = command_here("approvals", "key", "--out", "ann")
    assert code == 0
    assert re.fullmatch(r"[0-9a-f]{64}\n", public)
    assert stat.S_IMODE((tmp_path / "ann").stat().st_mode) == 0o600
    before = (tmp_path / "ann").read_bytes()
    code, _, told = command_here("approvals", "key", "--out", "ann")
    assert (code, told) == (1, "rsi-ray: ann: there already; a key is never written over\n")
    assert (tmp_path / "ann").read_bytes() == before
    code, _, told = command_here("approvals", "key", "--out", "no/where")
    assert (code, told) == (1, "rsi-ray: 'no/where': cannot be written: No such file or directory\n")


def test_a_kill_switch_is_lifted_when_both_have_approved(bound: Ledger, command: Printed):
    command("kill", "--reason", "fire")
    code, printed = command("unkill", "--reason", "out", "--by", "dan")
    name = name_in(printed)
    assert (code, printed.count("\n")) == (1, 1)
    assert f"`rsi-ray approvals approve {name} --key FILE --reason WHY`" in printed
    code, printed = decided(command, "approve", name, "ann")
    assert (code, "waits" in printed, "ann approves" in printed) == (0, True, True)
    assert command("unkill", "--reason", "out", "--by", "dan")[0] == 1
    assert ": approved; asked by dan" in decided(command, "approve", name, "bob")[1]
    assert command("unkill", "--reason", "out", "--by", "dan") == (0, "Sweeps may run again\n")
    assert bound.killed() is None
    _, listed = command("approvals", "list")
    assert listed.startswith(f"{name} unkill: approved, and used for unkill; asked by dan 20")


def test_a_rejection_is_told_and_who_is_no_approver_is_refused(
    bound: Ledger, command: Printed, command_here: Command
):
    command("kill", "--reason", "fire")
    name = name_in(command("unkill", "--reason", "out", "--by", "dan")[1])
    command_here("approvals", "key", "--out", "eve")
    code, printed = decided(command, "approve", name, "eve")
    assert (code, printed.count("\n")) == (1, 1)
    assert "is no approver by the limits in force" in printed
    assert ": rejected; " in decided(command, "reject", name, "ann")[1]
    code, printed = decided(command, "approve", name, "bob")
    assert (code, printed) == (1, f"rsi-ray: request {name} was rejected by ann: ann has looked\n")
    assert "  ann rejects: ann has looked\n" in command("approvals", "show", name)[1]


def test_limits_are_loosened_when_both_have_approved_and_show_what_changes(
    bound: Ledger, command: Printed, keys: dict[str, str], tmp_path: Path
):
    code, printed = write(tmp_path, keys, 100, command, "loosen")
    assert (code, printed.count("\n")) == (1, 1)
    name = name_in(printed)
    assert "  bounds.max_params: 99 becomes 100, looser\n" in command("approvals", "show", name)[1]
    for who in ("ann", "bob"):
        decided(command, "approve", name, who)
    code, printed = write(tmp_path, keys, 100, command, "loosen")
    assert code == 0
    assert printed.startswith("Version 2, ")
    assert bound.sweep("s").limits.bounds.max_params == 100
    assert "no longer those that these would follow" in command("approvals", "show", name)[1]


def test_a_request_is_shown_as_json_and_one_that_is_not_there_in_one_line(ledger: Ledger, command: Printed):
    assert command("approvals", "list") == (0, "Nothing was asked for\n")
    ledger.open_sweep("p", limits(approval=approval("ann")))
    champion = Champion(artifact="a1", parent="", generation=1, evidence="e1", train_gflop=1)
    request = ledger.ask_promotion("p", champion, "loop", "5% better")
    for told in (("list", "--json"), ("show", request.name, "--json")):
        found = json.loads(command("approvals", *told)[1])
        assert (found["digest"], found["state"], found["request"]["act"]["subject"]) == (
            request.digest,
            "waits",
            "a1",
        )
    assert "  about: 5% better\n" in command("approvals", "show", request.name)[1]
    code, printed = command("approvals", "show", "ffff")
    assert (code, printed.count("\n")) == (1, 1)
    assert "request 'ffff': not in the ledger" in printed


# clears the screen, begins a line of its own, turns the rest around, and hides in no width at all
HOSTILE = "loop\x1b[2J\r\n00 unkill: approved\u202e\u2066\u200b\x9b\x07"


def test_what_a_request_says_can_steer_no_terminal(ledger: Ledger, command: Printed, keys: dict[str, str]):
    ledger.open_sweep("p", limits(approval={"approvers": keys}))
    champion = Champion(artifact="a1", parent="", generation=1, evidence=f"e{HOSTILE}", train_gflop=1)
    name = ledger.ask_promotion("p", champion, HOSTILE, HOSTILE).name
    told = command("approvals", "reject", name, "--key", "ann", "--reason", HOSTILE)
    shown = command("approvals", "show", name), command("approvals", "list"), told
    for code, printed in shown:
        assert (code, steers(printed)) == (0, "")
        assert "loop\\x1b[2J\\r\\n00 unkill: approved\\u202e\\u2066\\u200b\\x9b\\x07" in printed
    assert [printed.count("\n") for _, printed in shown[1:]] == [1, 1]
    assert shown[0][1].count("\n") == 10
    # and an error that repeats what somebody has said
    code, printed = command("approvals", "approve", name, "--key", "bob", "--reason", "yes")
    assert (code, printed.count("\n"), steers(printed)) == (1, 1, "")


def steers(printed: str) -> str:
    """What in a text is no more than its characters, besides the ends of its lines."""
    return "".join(one for one in printed if one != "\n" and not one.isprintable())


def test_a_key_that_others_may_read_decides_nothing(bound: Ledger, command: Printed, tmp_path: Path):
    command("kill", "--reason", "fire")
    name = name_in(command("unkill", "--reason", "out")[1])
    (tmp_path / "ann").chmod(0o640)
    code, printed = decided(command, "approve", name, "ann")
    assert (code, printed) == (1, "rsi-ray: ann: others may read it (mode 640); expected mode 600\n")
    assert "cannot be read: No such file" in decided(command, "approve", name, "gone")[1]


def test_decisions_are_signed_into_the_audits_checkpoints(bound: Ledger, command: Printed, tmp_path: Path):
    identity_in(tmp_path)
    assert (tmp_path / KEY_FILE).exists()
    command("kill", "--reason", "fire")
    name = name_in(command("unkill", "--reason", "out")[1])
    decided(command, "approve", name, "ann")
    newest = CheckpointFile(tmp_path / "checkpoints", "ledger.db").read().newest
    assert newest
    assert newest.seq == len(bound.audit())


def test_approving_loads_neither_torch_nor_ray(tmp_path: Path):
    program = (
        "import sys; from rsi_ray.cli import app; sys.argv = ['rsi-ray', 'approvals']; app()\n"
        "print({'torch', 'ray', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
