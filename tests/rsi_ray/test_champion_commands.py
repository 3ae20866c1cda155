"""The commands by which people look at champions, go back to one, and take one away."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from rsi_ray import champion_commands
from rsi_ray.champion import ChampionStore
from rsi_ray.description import describe
from safety import Allow, Ledger, artifact_digest
from tests.conftest import Printed
from tests.rsi_ray.champions import SPEC, RolledBack, candidate, grown, open_lineage, pointer, promote


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    open_lineage(opened)
    yield opened
    opened.close()


@pytest.fixture
def store(ledger: Ledger, tmp_path: Path) -> ChampionStore:
    """A base, two champions, and a candidate."""
    store = grown(ledger, tmp_path / "champions", 1)
    deeper = describe(replace(SPEC, depth=2))
    assert promote(store, ledger, store.stage(candidate(2, spec=deeper, train_flops=5)), 0.6, 0.63) == Allow()
    store.stage(candidate(3, trial="run/3"))
    return store


def test_versions_are_listed_with_the_champion_marked(store: ChampionStore, command: Printed):
    code, printed = command("champion", "list")
    head, *rows = printed.splitlines()
    assert (code, head.split()) == (
        0,
        ["generation", "digest", "score", "delta", "params", "state", "promoted", "approved", "by"],
    )
    base, first, second, third = (row.split() for row in rows)
    assert base == ["0", store.find("0").artifact[:12], "0.5000", "2", "base"]
    assert (first[:5], first[-1]) == (["1", store.find("1").artifact[:12], "0.6000", "+0.1000", "2"], "ann")
    assert (second[:2], second[-1]) == (["*", "2"], "ann")
    assert third[-1] == "candidate"
    code, printed = command("champion", "list", "--json")
    told = [json.loads(line) for line in printed.splitlines()]
    assert [(one["generation"], one["current"], one["state"]) for one in told] == [
        (0, False, "base"),
        (1, False, "promoted"),
        (2, True, "promoted"),
        (3, False, "candidate"),
    ]
    assert told[1]["approvals"][0]["by"] == "ann"
    assert told[2]["total_flops"] == str(2 * 10**20 + 5)


def test_a_file_that_was_changed_is_told_beside_the_list(store: ChampionStore, command: Printed):
    store.find("1").path.write_bytes(b"other")
    code, printed = command("champion", "list")
    assert (code, printed.count("\n")) == (2, 5)
    assert "it isn't what it was: its digest is" in printed.splitlines()[-1]


def test_a_version_is_shown_with_its_domains_its_lineage_and_who_approved_it(
    store: ChampionStore, command: Printed
):
    code, printed = command("champion", "show")
    assert code == 0
    champion = store.champion()
    assert printed.startswith(f"{champion.name}: the champion of line\n")
    for line in (
        f"artifact: {champion.artifact}",
        "score: 0.63, better by 0.03",
        "reasoning: 0.7",
        f"training: 5 FLOPs, and {2 * 10**20:,} of its ancestors",
        f"ancestors: {store.find('1').name}, {store.find('0').name}",
        "ann approves: seen",
        "changed: depth: 1 -> 2",
    ):
        assert f"  {line}\n" in printed
    told = json.loads(command("champion", "show", "3", "--json")[1])
    assert (told["state"], told["manifest"]["trial"]) == ("candidate", "run/3")
    assert told["difference"] == ["depth: 2 -> 1"]


def test_a_difference_is_a_line_for_each_field(store: ChampionStore, command: Printed):
    assert command("champion", "diff", "1", "2") == (0, "depth: 1 -> 2\n")
    assert command("champion", "diff", "2", "1", "--json") == (
        0,
        '{"field": "depth", "old": "2", "new": "1"}\n',
    )
    assert command("champion", "diff", "0", "1") == (0, "")


def test_a_rollback_makes_the_last_known_safe_version_the_champion_again(
    store: ChampionStore, ledger: Ledger, command: Printed, monkeypatch: pytest.MonkeyPatch
):
    record = RolledBack(ledger)

    @contextmanager
    def opened(url: str | None, storage: Path) -> Iterator[RolledBack]:
        yield record

    monkeypatch.setattr(champion_commands, "open_ledger", opened)
    monkeypatch.setattr(champion_commands, "sign", lambda ledger, storage: None)
    first = store.find("1")
    code, printed = command("champion", "rollback", "--reason", "it lies", "--by", "ann")
    assert (code, printed) == (0, f"{first.name} is the champion of line again\n")
    assert record.told == [("line", first.artifact, "it lies", "ann")]
    assert pointer(store)["generation"] == 1
    assert re.search(r"^\* +1 .*\n.* rolled back ", command("champion", "list")[1], re.MULTILINE)
    code, printed = command("champion", "rollback", "--reason", "no", "--to", "2")
    assert (code, printed.count("\n")) == (2, 1)
    assert "expected the base or an earlier champion, found one that is rolled back" in printed
    assert command("champion", "rollback", "--reason", "no", "--to", "base")[0] == 2
    assert command("champion", "rollback", "--reason", "no", "--to", "0")[0] == 0
    assert record.told[-1] == ("line", "", "no", record.told[-1][3])


def test_a_version_is_taken_away_by_name(store: ChampionStore, command: Printed, tmp_path: Path):
    out = tmp_path / "out.safetensors"
    assert command("champion", "export", "current", "--out", str(out)) == (0, f"{out}\n")
    assert artifact_digest(out) == store.champion().artifact
    code, printed = command("champion", "export", "1", "--out", str(out))
    assert (code, printed) == (2, f"rsi-ray: out {out}: there already; expected the name of a new file\n")
    python = tmp_path / "model.py"
    code, printed = command("champion", "export", "1", "--format", "python", "--out", str(python))
    assert (code, printed) == (0, f"{python}\n{tmp_path / 'model.safetensors'}\n")
    base = tmp_path / "base.safetensors"
    code, printed = command("champion", "export", "0", "--out", str(base))
    name = store.find("0").name
    assert (code, printed) == (0, f"{base}\nrsi-ray: version {name}: not approved: the base\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "9"], "version '9' of lineage line: expected one, found none"),
        (["show", "../../etc"], "expected one, found none"),
        (["diff", "1", "zz"], "version 'zz' of lineage line"),
        (["list", "--lineage", "other"], "expected --lineage with one of those there, which are: line"),
        (["list", "--lineage", ".."], "expected --lineage with one of those there"),
        (["rollback", "--reason", "x", "--to", "current"], "found the champion itself"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(
    store: ChampionStore, command: Printed, arguments: list[str], told: str
):
    code, printed = command("champion", *arguments)
    assert (code, printed.count("\n")) == (2, 1)
    assert told in printed


def test_without_a_lineage_or_a_ledger_nothing_is_made(ledger: Ledger, command: Printed, tmp_path: Path):
    code, printed = command("champion", "list")
    assert (code, printed.count("\n")) == (2, 1)
    assert "which are: none yet" in printed
    assert not (tmp_path / "champions").exists()


def test_of_several_lineages_one_is_named(
    store: ChampionStore, ledger: Ledger, command: Printed, tmp_path: Path
):
    ChampionStore(tmp_path / "champions" / "other", ledger).adopt_base(candidate(5, inherits=False))
    code, printed = command("champion", "list")
    assert (code, "which are: line, other" in printed) == (2, True)
    assert command("champion", "list", "--lineage", "other")[0] == 0


def test_looking_loads_neither_torch_nor_ray(store: ChampionStore, tmp_path: Path):
    program = (
        "import sys; from rsi_ray.cli import app; app()(standalone_mode=False)\n"
        "print({'torch', 'ray', 'optuna'} & set(sys.modules))"
    )
    for arguments in (["list"], ["show"], ["diff", "0", "1"]):
        command = [sys.executable, "-c", program, "champion", *arguments, "--storage", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.endswith("set()\n")
