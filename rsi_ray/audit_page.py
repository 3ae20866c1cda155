"""The report on a ledger as one HTML page: no script, nothing from outside, fit to be printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from rsi_ray.html_table import Column, Moment, Row, Share, add_table, add_text

UNITS = {
    "train_gflop": "training, GFLOP",
    "trials": "trials",
    "concurrent_params": "parameters at a time",
    "gpu_ms": "GPU time, ms",
    "wall_ms": "wall-clock time, ms",
}


def page(report: Mapping[str, Any]) -> str:
    """The whole page; every name and reason in it is text, whatever it holds."""
    html = Element("html", lang="en")
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "title").text = "Safety report"
    SubElement(head, "style").text = (files("rsi_ray") / "report.css").read_text()
    main = SubElement(SubElement(html, "body"), "main")
    _opening(main, report)
    for heading, section in SECTIONS:
        block = SubElement(main, "section")
        SubElement(block, "h2").text = heading
        section(block, report)
    return "<!doctype html>\n" + ElementTree.tostring(html, encoding="unicode", method="html")


def _opening(main: Element, report: Mapping[str, Any]) -> None:
    header = SubElement(main, "header")
    SubElement(header, "h1").text = "Safety report"
    ledger, audit = report["ledger"], report["audit"]
    add_text(header, f"Ledger {ledger['url']}, {ledger['rows']:,} audit rows, as of {report['made_at']}")
    if report["killed"]:
        killed = report["killed"]
        _banner(
            header, f"The kill switch is thrown since {killed['at']}, by {killed['by']}: {killed['reason']}"
        )
    if audit["whole"]:
        newest = audit["newest"]
        signed = f"signed up to row {newest['seq']:,} of {newest['at']}" if newest else "nothing is signed"
        SubElement(
            header, "p", {"class": "good"}
        ).text = f"The audit is whole: {audit['rows']:,} rows, {signed}"
    else:
        _banner(header, f"The audit is not whole. {audit['problem']}")
    training, incidents = report["training"], report["incidents"]["rows"]
    facts = {
        "Training FLOPs": f"{training['train_flops']:,}",
        "Sweeps": f"{len(report['lineage']['sweeps']):,}",
        "Champions promoted": f"{len(report['lineage']['promotions']):,}",
        "Incidents": f"{incidents:,}",
    }
    listing = SubElement(header, "dl")
    for name, value in facts.items():
        fact = SubElement(listing, "div")
        SubElement(fact, "dt").text = name
        SubElement(fact, "dd").text = value


def _banner(parent: Element, text: str) -> None:
    SubElement(parent, "p", {"class": "bad", "role": "alert"}).text = text


def _get(name: str) -> Callable[[Row], Any]:
    return lambda row: row[name]


def _share(name: str) -> Callable[[Row], Any]:
    return lambda row: "no ceiling" if row[name] is None else Share(row[name])


# --- the sections


def _checked(block: Element, report: Mapping[str, Any]) -> None:
    audit = report["audit"]
    key = audit["public"] or "none"
    source = "named by whoever asked for this report" if audit["pinned"] else "found beside the ledger"
    facts = [
        {"what": "Rows that follow from one another", "found": audit["rows"]},
        {"what": "Checkpoints compared", "found": audit["checkpoints"]},
        {"what": "Newest checkpoint", "found": _newest(audit)},
        {"what": "Key", "found": f"{key}, {source}" if audit["public"] else key},
        {"what": "Places of checkpoints", "found": ", ".join(audit["places"])},
        {"what": "Ledger's id", "found": report["ledger"]["id"]},
    ]
    columns = [("What", _get("what")), ("Found", lambda row: f"{row['found']}")]
    add_table(block, "How the audit was checked", facts, columns, "")


def _newest(audit: Mapping[str, Any]) -> str:
    newest = audit["newest"]
    return f"row {newest['seq']:,}, {newest['at']}" if newest else "none"


def _training(block: Element, report: Mapping[str, Any]) -> None:
    training = report["training"]
    add_text(
        block,
        f"{training['train_flops']:,} FLOPs were used for training by every sweep of this ledger together; "
        f"{training['held_flops']:,} more are held for trials that are open.",
    )
    shares = [{**row, "percent": f"{100 * float(row['share']):.3g} %"} for row in training["shares"]]
    columns = [("Threshold, FLOPs", _get("of")), ("Share", _get("percent")), ("Exactly", _get("share"))]
    add_table(block, "Training FLOPs against thresholds", shares, columns, "")
    sources = [{"source": name, "gflop": amount} for name, amount in training["gflop"].items()]
    agreed = "they agree" if training["agree"] else "they differ"
    columns = [("Counted from", _get("source")), ("GFLOP", _get("gflop"))]
    add_table(block, f"The same sum counted from three places: {agreed}", sources, columns, "")


def _lineage(block: Element, report: Mapping[str, Any]) -> None:
    lineage = report["lineage"]
    columns = [*_WHEN, ("Champion", _get("key")), ("Sweep", _get("sweep")), ("Detail", _detail)]
    add_table(block, "Champions, in order", lineage["promotions"], columns, "No champion was promoted.")
    columns = [
        ("Sweep", _get("name")),
        ("Opened", lambda row: Moment(row["opened"][0]["at"]) if row["opened"] else "no row says so"),
        ("Resumed", lambda row: max(0, len(row["opened"]) - 1)),
        ("Limits", lambda row: ", ".join(dict.fromkeys(event["policy"][:12] for event in row["opened"]))),
        ("State", lambda row: f"{row['state']}: {row['reason']}" if row["reason"] else row["state"]),
        ("Admitted", _get("admitted")),
        ("Refused", _get("refused")),
        ("Settled", _get("settled")),
        ("Forfeited", _get("forfeited")),
        ("Training FLOPs", _get("train_flops")),
    ]
    add_table(block, "Sweeps, in the order in which they were opened", lineage["sweeps"], columns, "None.")


def _ceilings(block: Element, report: Mapping[str, Any]) -> None:
    columns: list[Column] = [
        ("Scope", _get("scope")),
        ("Budget", lambda row: UNITS.get(row["resource"], row["resource"])),
        ("Spent", _get("spent")),
        ("Held", _get("held")),
        ("Overrun", _get("overrun")),
        ("Ceiling", lambda row: "none" if row["cap"] is None else row["cap"]),
        ("Now", _share("share")),
        ("At the most", _share("peak_share")),
    ]
    add_table(block, "Budgets, and how near they came to their ceilings", report["budgets"], columns, "None.")
    columns = [
        ("Sweep", _get("sweep")),
        ("Ceiling of one candidate", _get("ceiling")),
        ("Limit", _get("limit")),
        ("Largest admitted", lambda row: "not in the audit" if row["largest"] is None else row["largest"]),
        ("Share", lambda row: "" if row["share"] is None else Share(row["share"])),
    ]
    add_table(block, "Ceilings of one candidate", report["ceilings"], columns, "No sweep was opened.")
    changed = [digest[:12] for digest, limits in report["policies"].items() if limits is None]
    if changed:
        _banner(block, f"These limits were changed in the ledger: {', '.join(changed)}")


def _denials(block: Element, report: Mapping[str, Any]) -> None:
    columns = [
        ("Rule", _get("rule")),
        ("Decision", _get("kind")),
        ("Rows", _get("count")),
        ("First", lambda row: Moment(row["first"])),
        ("Last", lambda row: Moment(row["last"])),
        ("Reason of the last", _get("reason")),
    ]
    add_table(
        block, "Denials, holds and incidents by rule", report["refusals"], columns, "Nothing was refused."
    )


def _decisions(block: Element, report: Mapping[str, Any]) -> None:
    columns = [*_WHEN, ("Decision", _get("kind")), ("Of", _place), ("Detail", _detail)]
    add_table(block, "Decisions of people", report["approvals"], columns, "Nothing was approved or rejected.")
    add_table(block, "The kill switch", report["kill_switch"], columns, "The kill switch was never thrown.")


def _drills(block: Element, report: Mapping[str, Any]) -> None:
    columns = [
        *_WHEN,
        ("Canary", lambda row: row["detail"].get("canary")),
        ("Node", lambda row: row["detail"].get("node")),
        ("Latency, ms", lambda row: row["detail"].get("latency_ms")),
        ("In time", lambda row: {True: "yes", False: "no"}.get(row["detail"].get("ok"))),
    ]
    add_table(block, "Drills of the kill switch", report["drills"], columns, "No drill was held.")


def _incidents(block: Element, report: Mapping[str, Any]) -> None:
    incidents = report["incidents"]
    left_out = incidents["rows"] - len(incidents["latest"])
    if left_out:
        add_text(block, f"{left_out:,} earlier ones are not listed; `rsi-ray audit show` prints them.")
    columns = [
        *_WHEN,
        ("What", _get("kind")),
        ("Rule", _get("rule")),
        ("Of", _place),
        ("Detail", _detail),
    ]
    add_table(block, "Incidents, in order", incidents["latest"], columns, "There was no incident.")


def _software(block: Element, report: Mapping[str, Any]) -> None:
    named = {"this machine, now": report["software"]["here"], **report["software"]["runs"]}
    names = list(dict.fromkeys(name for versions in named.values() for name in versions))
    rows = [{"where": where, "versions": versions} for where, versions in named.items()]
    columns: list[Column] = [("Where", _get("where"))]
    columns += [(name, partial(_version, name)) for name in names]
    add_table(block, "Versions of code and libraries", rows, columns, "")


def _version(name: str, row: Row) -> Any:
    return row["versions"].get(name)


def _unverified(block: Element, report: Mapping[str, Any]) -> None:
    listing = SubElement(block, "ul")
    for sentence in report["not_verified"]:
        SubElement(listing, "li").text = sentence


def _place(row: Row) -> str:
    return str(row["key"] or row["sweep"])


def _detail(row: Row) -> str:
    """Names and values of a row's detail; the reason without its name."""
    told = [str(row["detail"]["reason"])] if "reason" in row["detail"] else []
    return ", ".join(
        [*told, *(f"{name} {_plain(value)}" for name, value in row["detail"].items() if name != "reason")]
    )


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return f"{value:,}" if type(value) is int else str(value)


_WHEN: tuple[Column, ...] = (("Row", _get("row")), ("Time", lambda row: Moment(row["at"])))

SECTIONS: tuple[tuple[str, Callable[[Element, Mapping[str, Any]], None]], ...] = (
    ("What is not verified", _unverified),
    ("Training compute", _training),
    ("Lineage", _lineage),
    ("Ceilings and how near they came", _ceilings),
    ("Denials by rule", _denials),
    ("Approvals and the kill switch", _decisions),
    ("Drills", _drills),
    ("Incidents", _incidents),
    ("Code and libraries", _software),
    ("How the audit was checked", _checked),
)
