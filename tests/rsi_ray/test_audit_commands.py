"""The commands on an audit: checked, shown, reported."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rsi_ray.audit_page import page
from rsi_ray.runs import versions_of_run
from safety import Allow, Deny, Ledger
from safety.drills import Canary
from safety.identity import KEY_FILE, PUBLIC_FILE, identity_in
from safety.notary import Notary
from safety.places import places_of
from tests.conftest import Command, Printed
from tests.safety.fakes import FakeClock, limits, request


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A sweep with one lease that began and one that is reserved: four rows."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", FakeClock().clock())
    ledger.open_sweep("s", limits())
    for key in ("s/1", "s/2"):
        assert ledger.reserve(request(key)) == Allow()
    ledger.activate("s/1", "d1", "w1")
    yield ledger
    ledger.close()


@pytest.fixture
def notary(ledger: Ledger, tmp_path: Path) -> Notary:
    """It signs beside the ledger and in a folder elsewhere."""
    places = places_of(ledger.url, tmp_path, [tmp_path / "elsewhere"])
    return Notary(ledger, identity_in(tmp_path), places, FakeClock().clock())


@pytest.fixture
def signed(ledger: Ledger, notary: Notary) -> Ledger:
    """Eight rows, the last of them signed."""
    ledger.kill("fire", "ann")
    ledger.unkill("out", "ann")
    assert notary.sign_if_due()
    return ledger


@pytest.fixture
def command(tmp_path: Path, command_here: Command) -> Printed:
    def run(*arguments: str) -> tuple[int, str]:
        code, out, err = command_here("audit", *arguments, "--storage", str(tmp_path))
        return code, out + err

    return run


def change(tmp_path: Path, sql: str) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute(sql)


# --- verify


def test_an_audit_that_nobody_signed_is_checked_by_its_chain_alone(ledger: Ledger, command: Printed):
    assert command("verify") == (
        0,
        "4 rows, each follows from those before it\n"
        "No checkpoint is there: rows cut off at the end don't show\n",
    )


def test_an_audit_that_was_touched_fails_with_its_first_bad_row(
    ledger: Ledger, command: Printed, tmp_path: Path
):
    change(tmp_path, "UPDATE audit SET kind = 'deny' WHERE seq = 2")
    code, printed = command("verify")
    assert (code, printed.count("\n")) == (1, 1)
    assert printed.startswith("Row 2 was changed, moved or taken out")


def test_a_check_tells_what_it_was_checked_against(signed: Ledger, command: Printed, tmp_path: Path):
    code, printed = command("verify")
    assert code == 0
    assert "8 rows, each follows from those before it" in printed
    file = tmp_path / "checkpoints" / "ledger.db.checkpoints.jsonl"
    assert f"{file}: 1 checkpoints that agree, the newest of row 8 at 2023-11-14T22:13:20.000Z" in printed
    assert f"Signed by the key {identity_in(tmp_path).public}" in printed
    assert "The key lies beside the ledger" in printed
    assert "The checkpoints lie beside the ledger" in printed


def test_a_key_and_a_place_that_are_named_leave_no_doubt(signed: Ledger, command: Printed, tmp_path: Path):
    public = identity_in(tmp_path).public
    elsewhere = str(tmp_path / "elsewhere")
    code, printed = command("verify", "--public-key", public.upper(), "--checkpoints", elsewhere)
    assert code == 0
    assert "beside" not in printed
    assert f"{elsewhere}/ledger.db.checkpoints.jsonl: 1 checkpoints that agree" in printed


def test_a_tail_that_was_cut_fails_in_one_line(signed: Ledger, command: Printed, tmp_path: Path):
    change(tmp_path, "DELETE FROM audit WHERE seq > 5")
    assert command("verify") == (
        1,
        "Row 6 is missing: the tail was cut; the rows up to 8 were signed and must be there\n",
    )


def test_a_tail_cut_with_the_checkpoints_beside_it_shows_against_those_elsewhere(
    signed: Ledger, command: Printed, tmp_path: Path
):
    change(tmp_path, "DELETE FROM audit WHERE seq > 5")
    places_of(signed.url, tmp_path)[0].path.unlink()
    assert command("verify")[0] == 0
    code, printed = command("verify", "--checkpoints", str(tmp_path / "elsewhere"))
    assert (code, printed.split(":")[0]) == (1, "Row 6 is missing")


def test_another_key_than_the_one_that_signed_fails(signed: Ledger, command: Printed, tmp_path: Path):
    other = identity_in(tmp_path / "other").public
    code, printed = command("verify", "--public-key", other)
    assert code == 1
    assert f"isn't signed by the key {other}" in printed


@pytest.mark.parametrize("key", ["", "ab", "g" * 64])
def test_a_key_that_is_none_is_refused(ledger: Ledger, command: Printed, key: str):
    code, printed = command("verify", "--public-key", key)
    assert code == 2
    assert printed == f"rsi-ray: --public-key {key}: expected the 64 hexadecimal digits of a public key\n"


def test_checkpoints_that_no_key_is_there_for_are_no_proof(signed: Ledger, command: Printed, tmp_path: Path):
    (tmp_path / PUBLIC_FILE).unlink()
    code, printed = command("verify")
    assert (code, printed) == (1, "1 checkpoints can't be checked without the key: name it by --public-key\n")


def test_whoever_may_not_read_the_private_key_checks_by_its_public_half(
    signed: Ledger, command: Printed, tmp_path: Path
):
    (tmp_path / KEY_FILE).unlink()
    code, printed = command("verify")
    assert code == 0
    assert f"Signed by the key {(tmp_path / PUBLIC_FILE).read_text()}" in printed


def test_a_public_half_that_is_none_is_told_and_not_used(signed: Ledger, command: Printed, tmp_path: Path):
    (tmp_path / PUBLIC_FILE).write_text("nonsense")
    code, printed = command("verify")
    assert code == 1
    assert "governor.pub: expected the 64 hexadecimal digits of a public key" in printed


def test_a_place_that_was_named_and_holds_nothing_fails(signed: Ledger, command: Printed, tmp_path: Path):
    code, printed = command("verify", "--checkpoints", str(tmp_path / "nowhere"))
    assert code == 1
    assert printed.startswith("No checkpoint in ")
    assert not (tmp_path / "nowhere").exists()


def test_a_torn_line_is_told_and_no_failure(signed: Ledger, command: Printed, tmp_path: Path):
    path = places_of(signed.url, tmp_path)[0].path
    path.write_bytes(path.read_bytes() + b'{"seq": 9')
    code, printed = command("verify")
    assert code == 0
    assert f"{path}: not a checkpoint, torn by a crash or changed: line 2" in printed


def test_what_could_not_be_signed_is_told_with_its_reason(
    ledger: Ledger, notary: Notary, command: Printed, tmp_path: Path
):
    ledger.kill("fire", "ann")
    notary.sign_if_due()
    folder = tmp_path / "checkpoints"
    folder.rename(tmp_path / "gone")
    folder.write_text("")
    ledger.kill("again", "ann")
    notary.sign_if_due()
    folder.unlink()
    (tmp_path / "gone").rename(folder)
    code, printed = command("verify")
    assert code == 0
    assert "Row 8 should be signed and is not: " in printed
    assert "can't be written" in printed


def test_what_nobody_has_signed_yet_is_told(signed: Ledger, command: Printed):
    signed.kill("again", "ann")
    assert "Row 9 should be signed and is not: no reason is told" in command("verify")[1]


# --- show


def test_rows_are_shown_by_kind_by_sweep_by_rule_and_from_the_end(ledger: Ledger, command: Printed):
    ledger.open_sweep("t", limits())
    ledger.kill("fire", "ann")
    code, printed = command("show")
    assert code == 0
    assert printed.count("\n") == len(ledger.audit())
    assert "  kill " in printed
    assert "fire, by ann" in printed
    code, printed = command("show", "--kind", "reserve", "--kind", "activate", "--last", "2")
    assert [line.split()[2:4] for line in printed.splitlines()] == [["reserve", "s/2"], ["activate", "s/1"]]
    assert command("show", "--sweep", "t")[1].split()[2:4] == ["open_sweep", "t"]
    assert {line.split()[2] for line in command("show", "--rule", "killed")[1].splitlines()} == {
        "revoke",
        "void",
    }


def test_rows_in_json_are_what_the_chain_was_made_of(ledger: Ledger, command: Printed):
    _, printed = command("show", "--json")
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [(row["seq"], row["kind"], row["hash"]) for row in rows] == [
        (seq, entry.kind, row_hash) for seq, entry, row_hash in ledger.audit()
    ]
    assert rows[-1]["at"] == "2023-11-14T22:13:20.000Z"
    assert rows[-1]["detail"] == {"fence": 1, "holder": "w1"}


def test_a_reason_does_not_steer_the_terminal(ledger: Ledger, command: Printed):
    ledger.refuse("s", "", Deny("r", "\x1b[2J\nsecond \ud800 line, ünïcode"))
    _, printed = command("show", "--last", "1")
    assert printed.endswith(r"\x1b[2J\nsecond \ud800 line, ünïcode" + "\n")
    assert printed.count("\n") == 1


# --- report


class Tags(HTMLParser):
    """Names and attributes of a page's elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.tags)


def test_a_report_is_one_page_and_one_file_of_the_same_numbers(
    signed: Ledger, command: Printed, tmp_path: Path
):
    out = tmp_path / "reports" / "board"
    code, printed = command("report", "--out", str(out))
    assert (code, printed) == (0, f"{out}.html and {out}.json\n")
    found = json.loads(Path(f"{out}.json").read_text())
    html = Path(f"{out}.html").read_text()
    assert (found["ledger"]["rows"], found["audit"]["whole"], found["audit"]["newest"]["seq"]) == (8, True, 8)
    assert found["software"]["here"]["rsi-ray"]
    assert html == page(found)
    for section in ("not_verified", "training", "lineage", "budgets", "ceilings", "refusals", "drills"):
        assert found[section] is not None
    assert "The audit is whole: 8 rows, signed up to row 8" in html
    assert "No champion was promoted." in html
    assert "No drill was held." in html


@pytest.mark.parametrize("name", ["board.html", "board.json"])
def test_a_report_may_be_named_by_either_of_its_files(
    ledger: Ledger, command: Printed, tmp_path: Path, name: str
):
    assert command("report", "--out", str(tmp_path / name))[0] == 0
    assert {"board.html", "board.json"} <= set(os.listdir(tmp_path))


def test_a_report_on_a_broken_audit_is_written_and_fails(signed: Ledger, command: Printed, tmp_path: Path):
    change(tmp_path, "UPDATE audit SET rule = 'x' WHERE seq = 3")
    code, printed = command("report", "--out", str(tmp_path / "board"))
    assert code == 1
    assert "Row 3 was changed" in printed
    html = (tmp_path / "board.html").read_text()
    assert "The audit is not whole. Row 3 was changed" in html
    assert 'role="alert"' in html


def test_names_and_reasons_are_text_whatever_they_hold(ledger: Ledger, command: Printed, tmp_path: Path):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection, connection:
        # no ledger opens a sweep of that name; whoever can write its file can
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("UPDATE sweeps SET name = ?", (evil,))
    ledger.freeze(evil, evil)
    ledger.kill(evil, evil)
    ledger.refuse(evil, evil, Deny(evil, evil + "\ud800"), kind="incident")
    assert command("report", "--out", str(tmp_path / "board"))[0] == 0
    html = (tmp_path / "board.html").read_text(encoding="utf-8")
    tags = Tags(html)
    assert (tags.count("script"), tags.count("img")) == (0, 0)
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_a_page_needs_nothing_from_outside_and_names_its_tables(
    signed: Ledger, command: Printed, tmp_path: Path
):
    command("report", "--out", str(tmp_path / "board"))
    html = (tmp_path / "board.html").read_text()
    tags = Tags(html)
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in tags.tags}
    assert not [attributes for _, attributes in tags.tags if {"src", "href"} & set(attributes)]
    assert not re.search(r"url\(|@import|https?:", html)
    assert tags.tags[0] == ("html", {"lang": "en"})
    assert tags.count("table") == tags.count("caption") > 5
    assert all(attributes.get("scope") == "col" for tag, attributes in tags.tags if tag == "th")


def test_a_page_shows_every_kind_of_row(ledger: Ledger, command: Printed, tmp_path: Path):
    ledger.kill("fire", "ann")
    ledger.close_sweep("s", {})
    change(tmp_path, "UPDATE policies SET limits = replace(limits, '1000', '9999')")
    command("report", "--out", str(tmp_path / "board"))
    found = json.loads((tmp_path / "board.json").read_text())
    drill = {"row": 9, "at": "2024-01-01T00:00:00.000Z", "kind": "drill", "sweep": "", "key": "", "rule": ""}
    drill["detail"] = {"target": "native", "node": "n1", "latency_ms": 1234, "ok": False}
    found["drills"] = [drill]
    found["incidents"]["rows"] = 1500
    found["budgets"][0].update(cap=10, share=0.0004, peak_share=0.95)
    html = page(found)
    assert "The kill switch is thrown since 2023-11-14T22:13:20.000Z, by ann: fire" in html
    assert "These limits were changed in the ledger" in html
    assert ">1,234<" in html
    assert ">no<" in html
    assert "1,499 earlier ones are not listed" in html
    assert "4.0e-04 " in html
    assert 'class="full" style="width:95.0%"' in html


def test_versions_of_a_run_are_those_that_it_wrote_down(ledger: Ledger, command: Printed, tmp_path: Path):
    (tmp_path / "s").mkdir()
    about = {"python": "3.9", "libraries": {"torch": "1.0"}}
    (tmp_path / "s" / "run.json").write_text(json.dumps(about))
    command("report", "--out", str(tmp_path / "board"))
    found = json.loads((tmp_path / "board.json").read_text())
    assert found["software"]["runs"] == {"s": {"python": "3.9", "torch": "1.0"}}
    assert ">1.0<" in (tmp_path / "board.html").read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"python": 1, "libraries": 2}'])
def test_a_run_that_wrote_nothing_readable_has_no_versions(tmp_path: Path, text: str):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "run.json").write_text(text)
    assert versions_of_run(tmp_path, "s") == {}


def test_a_sweeps_name_leads_to_no_folder_elsewhere(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text('{"python": "3", "libraries": {}}')
    assert versions_of_run(tmp_path, "x") == {"python": "3"}
    assert versions_of_run(tmp_path / "y", "../x") == {}
    assert versions_of_run(tmp_path, "nul\0") == {}


def test_a_drill_is_reported_canary_by_canary(ledger: Ledger, command: Printed, tmp_path: Path):
    ledger.record_drill([Canary(node="n1", kind="stuck", latency_ms=917)], 2000, by="ann")
    command("report", "--out", str(tmp_path / "board"))
    html = (tmp_path / "board.html").read_text()
    assert ("stuck" in html, "n1" in html, "917" in html) == (True, True, True)
