"""The recursive loop on a real Ray, by its command: promoted, answered, killed anywhere, run away.

One loop has a Ray of its own, as people start it; the others share one.
"""

from __future__ import annotations

import json
import os
import pickle
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from rsi_ray.champion import ChampionStore
from rsi_ray.champion_version import Version
from rsi_ray.errors import ChampionError
from rsi_ray.loop import Event, Why
from rsi_ray.recursion import Outcome, run_recursion
from safety import Decision, Ledger, Promoted
from tests.conftest import Command
from tests.integration import rising
from tests.integration.conftest import end_governor, gone, workers

pytestmark = pytest.mark.ray

ROOT = str(Path(__file__).parents[2])
# draws of a batch in one training
DRAWS = rising.TRAINING["steps_per_epoch"]
OWN, TASK = "tests.integration.rising", "tests.integration.rising_task"


def job(folder: Path, task: str = "RisingTask", **changes: Any) -> Path:
    """The file of a loop in this folder."""
    told = {
        "name": "rising",
        "lineage": "line",
        "trials": 2,
        "concurrent": 1,
        "sampler": "random",
        "trial_seconds": 60,
        "space": {"kind": f"{TASK}:RisingSpace"},
        "task": {"kind": f"{TASK}:{task}", "options": {"folder": str(folder)}},
        "training": rising.TRAINING,
        "scheduler": {"kind": "fifo"},
        "baseline": {"width": 2},
        "recursion": {
            "generations": 2,
            "seeds": 1,
            "policy": {"max_improvement": 10, "lifts_holds": True},
        },
        "limits": rising.LIMITS,
    }
    path = folder / "loop.yaml"
    path.write_text(yaml.safe_dump({**told, **changes}))
    return path


CLI = ("-c", "from rsi_ray.cli import main; main()")


def started(folder: Path, *arguments: object, of: tuple[str, ...] = CLI) -> subprocess.Popen[bytes]:
    """The command in a process of its own; what it prints goes to a file `out`."""
    with (folder / "out").open("w") as out:
        return subprocess.Popen(
            [sys.executable, *of, *map(str, arguments)], cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": ROOT},
        )  # fmt: skip


def rsi_ray(folder: Path, *arguments: object, of: tuple[str, ...] = CLI) -> tuple[int, str]:
    """Exit code of the command, and what it prints."""
    code = started(folder, *arguments, of=of).wait(timeout=280)
    return code, (folder / "out").read_text()


def hold(folder: Path, where: str, passing: int = 0) -> None:
    """Let whoever comes there wait, once so many have passed."""
    (folder / f"in-{where}").unlink(missing_ok=True)
    (folder / f"hold-{where}").write_text(str(passing))


def let_go(folder: Path, where: str) -> None:
    (folder / f"hold-{where}").unlink()


def caught(folder: Path, process: subprocess.Popen[bytes], where: str, number: signal.Signals) -> str:
    """Send a signal to a command once it is there; what it has printed when all of its workers are gone."""
    wait_for(lambda: (folder / f"in-{where}").exists() or process.poll() is not None, 200)
    assert process.poll() is None, (folder / "out").read_text()
    busy = workers()
    assert busy
    process.send_signal(number)
    process.wait(timeout=60)
    assert gone(busy, 20)
    return (folder / "out").read_text()


def wait_for(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def run_of(folder: Path) -> str:
    """Name of the one run of the loop."""
    (found,) = folder.glob("rsi_results/*/loop.json")
    return found.parent.name


def opened(folder: Path) -> Ledger:
    return Ledger(f"sqlite:///{folder}/rsi_results/ledger.db")


def spent(folder: Path) -> dict[str, int]:
    """What the run has spent of each budget that no clock decides."""
    ledger = opened(folder)
    found = {one.resource: one.spent for one in ledger.budgets(run_of(folder)) if one.scope != "cluster"}
    ledger.close()
    return {name: found[name] for name in ("trials", "train_gflop")}


def open_leases(folder: Path) -> int:
    ledger = opened(folder)
    found = ledger.open_leases(run_of(folder))
    ledger.close()
    return len(found)


def promoted(folder: Path) -> list[Promoted]:
    ledger = opened(folder)
    found = list(ledger.champions("line"))
    ledger.close()
    return found


def champions(folder: Path) -> list[Version]:
    """The champions on disk, the base first."""
    ledger = opened(folder)
    versions, problems = ChampionStore(folder / "rsi_results/champions/line", ledger).versions()
    ledger.close()
    assert problems == []
    return [one for one in versions if one.state in ("base", "promoted")]


def weights(folder: Path) -> list[str]:
    """Digest of each champion's weights."""
    return [one.manifest.weights for one in champions(folder)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a loop that a policy has watched over, and what it has printed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, printed = rsi_ray(folder, "run", job(folder), "--approve", "policy")
    assert code == 0, printed
    return folder, printed


def test_a_policy_lets_champion_after_champion_be_promoted(
    undisturbed: tuple[Path, str], command_here: Command
):
    folder, printed = undisturbed
    found = champions(folder)
    assert [one.manifest.generation for one in found] == [0, 1, 2]
    assert found[-1].current
    assert found[-1].manifest.total_flops == sum(one.manifest.train_flops for one in found)
    scores = [one.promotion.new for one in promoted(folder)]
    assert 0.25 < scores[0] < scores[1] - 0.01
    assert "Generation 2 is the champion" in printed
    storage = str(folder / "rsi_results")
    code, listed, _ = command_here("champion", "list", "--storage", storage)
    assert (code, [line.lstrip("* ").split()[0] for line in listed.splitlines()[1:]]) == (0, ["0", "1", "2"])
    assert command_here("audit", "verify", "--storage", storage)[0] == 0
    ledger = opened(folder)
    requests = ledger.requests()
    ledger.close()
    assert [len(one.decisions) for one, _ in requests] == [1, 1]
    assert all(one.used_for and one.decisions[0].reason.startswith("within policy") for one, _ in requests)


def answer(command_here: Command, folder: Path, said: str) -> None:
    """Approve or reject the newest request, as the run's last words say."""
    (*_, newest) = opened(folder).requests()
    storage = folder / "rsi_results"
    how = ("--key", str(storage / "approver.key"), "--reason", "ok", "--storage", str(storage))
    code, out, err = command_here("approvals", said, newest[0].request.name, *how)
    assert code == 0, out + err


def test_unattended_it_stops_at_the_first_request_and_goes_on_as_people_decide(
    tmp_path: Path, undisturbed: tuple[Path, str], command_here: Command, fresh_governor: None
):
    def rsi_ray(*arguments: str, code: int) -> str:
        found, out, err = command_here("run", *arguments)
        assert found == code, out + err
        return out

    folder = tmp_path
    printed = rsi_ray(str(job(folder)), code=3)
    run = run_of(folder)
    assert f"`rsi-ray run --resume {run}` goes on" in printed
    assert "rsi-ray approvals approve" in printed
    assert promoted(folder) == []

    answer(command_here, folder, "approve")
    printed = rsi_ray("--resume", run, code=3)
    assert [one.approvers[0] for one in promoted(folder)] == [opened(folder).requests()[0][0].decisions[0].by]
    assert "Generation 1 is the champion" in printed
    assert "rsi-ray approvals approve" in printed

    answer(command_here, folder, "reject")
    printed = rsi_ray("--resume", run, code=0)
    assert "rejected" in printed
    assert len(promoted(folder)) == 1
    assert len(opened(folder).requests()) == 2
    # nothing was trained, nor evaluated, twice
    assert spent(folder) == spent(undisturbed[0])
    assert weights(folder) == weights(undisturbed[0])[:2]


def test_a_loop_that_is_killed_anywhere_ends_where_it_would_have_ended(
    tmp_path: Path, undisturbed: tuple[Path, str], command_here: Command, on_shared_ray: None
):
    steps: list[dict[str, int]] = []

    def killed(process: subprocess.Popen[bytes], where: str) -> None:
        caught(tmp_path, process, where, signal.SIGKILL)
        steps.append(spent(tmp_path))
        if where == "batch":  # and once it lives on, as it does where the driver alone dies
            end_governor()

    hold(tmp_path, "batch")
    killed(started(tmp_path, "run", job(tmp_path), "--approve", "policy"), "batch")
    run = run_of(tmp_path)
    again = ("run", "--resume", run, "--approve", "policy")
    # in the middle of the second candidate of the first generation
    hold(tmp_path, "batch", 3 * DRAWS)
    killed(started(tmp_path, *again), "batch")
    let_go(tmp_path, "batch")
    hold(tmp_path, "sealed")
    killed(started(tmp_path, *again), "sealed")
    let_go(tmp_path, "sealed")
    code, printed = rsi_ray(tmp_path, "resume-and-die", run, of=("-m", OWN))
    assert code == -signal.SIGKILL, printed
    steps.append(spent(tmp_path))
    assert promoted(tmp_path) == []

    code, printed, err = command_here(*again)
    assert code == 0, printed + err
    steps.append(spent(tmp_path))
    assert weights(tmp_path) == weights(undisturbed[0])
    assert [one.manifest.spec for one in champions(tmp_path)] == [
        one.manifest.spec for one in champions(undisturbed[0])
    ]
    assert [one.champion.generation for one in promoted(tmp_path) if one.champion] == [1, 2]
    assert all(later[name] >= count for earlier, later in pairwise(steps) for name, count in earlier.items())
    assert steps[-1]["trials"] > spent(undisturbed[0])["trials"]
    assert open_leases(tmp_path) == 0
    ledger = opened(tmp_path)
    assert len(ledger.requests()) == 2
    ledger.close()


def test_an_interrupt_anywhere_is_one_line_and_the_loop_goes_on_later(
    tmp_path: Path, undisturbed: tuple[Path, str], command_here: Command, on_shared_ray: None
):
    path = job(tmp_path, recursion={"generations": 1, "seeds": 1, "policy": {"max_improvement": 10}})
    hold(tmp_path, "batch", (1 + 1 + 1) * DRAWS)
    process = started(tmp_path, "run", path, "--approve", "policy")
    printed = caught(tmp_path, process, "batch", signal.SIGINT)
    assert process.returncode == 130, printed
    assert printed.count("interrupted by SIGINT") == 1
    assert "Traceback" not in printed
    assert open_leases(tmp_path) == 0
    again = ("run", "--resume", run_of(tmp_path), "--approve", "policy")
    let_go(tmp_path, "batch")
    hold(tmp_path, "sealed")
    process = started(tmp_path, *again)
    printed = caught(tmp_path, process, "sealed", signal.SIGTERM)
    assert process.returncode == 130, printed
    assert printed.count(f"interrupted; `rsi-ray run --resume {run_of(tmp_path)}` goes on") == 1
    assert "Traceback" not in printed
    let_go(tmp_path, "sealed")
    code, out, err = command_here(*again)
    assert code == 0, out + err
    assert weights(tmp_path) == weights(undisturbed[0])[:2]
    assert open_leases(tmp_path) == 0


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, *CLI, *map(str, arguments)], cwd=folder, stdin=theirs, stdout=theirs,
            stderr=theirs, env={**os.environ, "PYTHONPATH": ROOT, "TERM": "xterm", "COLUMNS": "200"},
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def read_until(self, words: str, seconds: float = 200) -> str:
        """What it prints up to these words, and since the last."""
        deadline = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._ours], [], [], 1)[0]:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(words)
        return before

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())


def test_on_a_terminal_people_see_what_they_decide_of_and_no_answer_is_no(
    tmp_path: Path, on_shared_ray: None
):
    terminal = Terminal(tmp_path, "run", job(tmp_path), "--approve", "ask")
    question = "Approve modification?"
    shown = terminal.read_until(question)
    for told in (
        "current score   0.26",
        "proposed score  0.3",
        "believed",
        "yes: 0.26",
        "(ceiling 0.99",
        "width: 2 becomes",
        "training FLOPs, ancestors' too",
        "ancestors       0-",
        "by 2 seeds on sealed data",
    ):
        assert told in shown, told
    terminal.type("perhaps\n")
    assert "expected yes or no" in terminal.read_until(question)
    terminal.type("yes\n")
    terminal.read_until("Why?")
    terminal.type("it counts better\n")
    terminal.read_until(question)
    assert len(promoted(tmp_path)) == 1
    terminal.type("\x04")
    assert "goes on" in terminal.read_until("Champion:")
    assert terminal.process.wait(timeout=60) == 3
    assert len(promoted(tmp_path)) == 1
    (first, _), (second, _) = opened(tmp_path).requests()
    assert [one.reason for one in first.decisions] == ["it counts better"]
    assert second.decisions == ()


# --- what runs away, and what is exchanged


def alarm(folder: Path) -> Mapping[str, Any]:
    """A command that keeps the alert."""
    return {"command": ["/bin/sh", "-c", f"cat >> {folder}/alert"], "seconds": 0}


def require_shut_down(folder: Path) -> None:
    """The third generation was refused, and the lineage is at its last known safe champion."""
    ledger = opened(folder)
    (incident,) = ledger.incidents()
    assert incident.rule == "runaway"
    assert [one.rolled_back for one in ledger.champions("line")] == [False, True]
    assert ledger.leases_left(incident.number) == 0
    saved = folder / "rsi_results/incidents" / incident.name
    names = {"incident.json", "champion.safetensors", "state.json", "history.json", "audit.jsonl", "log.txt"}
    assert names <= {path.name for path in saved.iterdir()}
    assert len(json.loads((saved / "history.json").read_text())) == 2
    store = ChampionStore(folder / "rsi_results/champions/line", ledger)
    champion = store.champion()
    assert champion.manifest.generation == 1
    pointer = json.loads((store.folder / "current.json").read_text())
    assert pointer["artifact"] == champion.artifact
    told = json.loads((folder / "alert").read_text().splitlines()[0])
    assert told["lineage"] == "line"
    ledger.close()


def test_a_runaway_is_stopped_before_it_is_promoted(tmp_path: Path, fresh_governor: None):
    outcome = rising.run_away(tmp_path, alerts=alarm(tmp_path))
    assert outcome.ending.why is Why.SHUT_DOWN
    assert "gained 0.01, 0.02, 0.04" in outcome.ending.text
    assert [one.generation for one in outcome.champions] == [0, 1]
    require_shut_down(tmp_path)


def test_a_shutdown_that_died_in_the_middle_is_completed_and_holds_until_people_release_it(
    tmp_path: Path, command_here: Command, on_shared_ray: None
):
    alerts = dict(alarm(tmp_path))
    code, printed = rsi_ray(
        tmp_path, "runaway-and-die", tmp_path, json.dumps(alerts), of=("-m", OWN)
    )  # fmt: skip
    assert code == -signal.SIGKILL, printed
    ledger = opened(tmp_path)
    (incident,) = ledger.incidents()
    ledger.close()
    assert not incident.step("saved")
    assert not (tmp_path / "alert").exists()

    recursion = {"generations": 1, "seeds": 0, "policy": {"max_improvement": 10}}
    path = job(tmp_path, "LevelledTask", alerts=alerts, recursion=recursion)
    runs = sorted(tmp_path.glob("rsi_results/rising-*"))
    code, out, err = command_here("run", str(path), "--approve", "policy")
    assert (code, err.count("rsi-ray: ")) == (2, 1), out + err
    assert "lineage line: shut down" in err
    assert sorted(tmp_path.glob("rsi_results/rising-*")) == runs
    require_shut_down(tmp_path)

    number = str(incident.number)
    for step in ("acknowledge", "release"):
        told = command_here(
            "incidents", step, number, "--reason", "seen", "--storage", str(tmp_path / "rsi_results")
        )
        if step == "release" and told[0]:
            answer(command_here, tmp_path, "approve")
            told = command_here(
                "incidents", step, number, "--reason", "seen", "--storage", str(tmp_path / "rsi_results")
            )
        assert told[0] == 0, told
    code, printed, err = command_here("run", str(path), "--approve", "policy")
    assert code == 0, printed + err
    assert "Generation 3 is the champion" in printed or promoted(tmp_path)[-1].promotion.new == 0.57


class Pwned:
    """A pickle's payload."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def test_what_was_exchanged_on_disk_is_neither_read_nor_promoted(tmp_path: Path, fresh_governor: None):
    kept: dict[Path, bytes] = {}

    def exchanged(event: Event, by: Callable[[Path], None]) -> None:
        if event.kind == "searched":
            for path in tmp_path.glob("rsi_results/*-g1-*/weights/*.safetensors"):
                if path not in kept:
                    kept[path] = path.read_bytes()
                path.unlink()
                by(path)

    def link(path: Path) -> None:
        elsewhere = tmp_path / path.name
        elsewhere.write_bytes(kept[path])
        path.symlink_to(elsewhere)

    def payload(path: Path) -> None:
        path.write_bytes(pickle.dumps(Pwned(tmp_path / "pwned")))

    def run(resume: str | None = None, **changes: Any) -> Outcome:
        return run_recursion(rising.recursion(tmp_path, generations=1, **changes), resume=resume)

    def refused(by: Callable[[Path], None], resume: str | None = None) -> str:
        events: list[Event] = []
        outcome = run(resume, tell=lambda event: (events.append(event), exchanged(event, by))[0])
        assert outcome.ending.why is Why.NOTHING
        return " ".join(event.text for event in events if event.kind == "refused")

    assert "link" in refused(link)
    name = run_of(tmp_path)
    assert "no safetensors" in refused(payload, name)
    assert not (tmp_path / "pwned").exists()

    class Exchanging:
        """Approves, and exchanges what it has approved."""

        def decide(self, request: Any, proposal: Any) -> Decision | None:
            (staged,) = tmp_path.glob("rsi_results/champions/line/1-*.safetensors")
            staged.write_bytes(staged.read_bytes()[:-1] + b"!")
            return rising.recursion(tmp_path).approver.decide(request, proposal)

    def restored(event: Event) -> None:
        exchanged(event, lambda path: (path.write_bytes(kept[path]), None)[1])

    with pytest.raises(ChampionError, match="it isn't what it was"):
        run(name, tell=restored, approver=Exchanging())
    assert promoted(tmp_path) == []
    ledger = opened(tmp_path)
    assert len(ledger.requests()[0][0].decisions) == 1
    ledger.close()
