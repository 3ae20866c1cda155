"""The board for Grafana and the alerts for Prometheus, held against what the code exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rsi_ray.commands import app
from tests.exported import EXPORTED

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "deploy" / "grafana" / "rsi.json"
RULES = ROOT / "deploy" / "prometheus" / "rsi-alerts.yaml"
TESTS = ROOT / "deploy" / "prometheus" / "rsi-alerts-test.yaml"
PAGE = ROOT / "docs" / "monitoring.md"


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\bray_(?!io_)\w+", text))


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in board()["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


# --- names


def of_ray() -> set[str]:
    """Names that Ray's own board asks for."""
    boards = files("ray.dashboard.modules.metrics.dashboards")
    return named_in((boards / "default_dashboard_panels.py").read_text())


def test_every_metric_on_the_board_is_one_that_this_code_or_ray_exports():
    variables = [one["definition"] for one in board()["templating"]["list"] if one["type"] == "query"]
    named = named_in(" ".join([*queries(), *variables]))
    assert named - set(EXPORTED) <= {name for name in of_ray() if not name.startswith("ray_rsi_")}


def test_every_metric_that_this_code_exports_is_on_the_board():
    assert set(EXPORTED) <= named_in(" ".join(queries()))


# by which a session of Ray is known to be there
OF_A_NODE = "ray_node_cpu_utilization"


def test_every_metric_in_the_rules_and_their_tests_is_one_that_this_code_exports_or_a_nodes():
    assert named_in(" ".join(rule["expr"] for rule in rules())) <= {*EXPORTED, OF_A_NODE}
    assert named_in(TESTS.read_text()) <= {*EXPORTED, OF_A_NODE}
    assert OF_A_NODE in of_ray()


@pytest.mark.parametrize("query", [*queries(), *[rule["expr"] for rule in rules()]])
def test_a_query_asks_for_no_label_that_its_metrics_have_not(query: str):
    # of Ray's own export, of Prometheus, and of KubeRay
    given = {"SessionName", "NodeAddress", "WorkerId", "instance", "GpuIndex", "ray_io_cluster"}
    known = given.union(*(EXPORTED[name].labels for name in named_in(query) if name in EXPORTED))
    known |= {"scope", "resource"} if "rsi:budget_" in query else set()
    braces = " ".join(re.findall(r"\{(.*?)\}", query))
    matched = re.findall(r"(\w+)\s*(?:=|!)", braces)
    grouped = re.findall(r"\w+", " ".join(re.findall(r"by \((.*?)\)", query)))
    assert {*matched, *grouped} <= known


def test_every_metric_stands_on_the_page_with_its_labels():
    page = PAGE.read_text()
    for name, metric in EXPORTED.items():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        assert f"| `{name}` | {labels} |" in page
    assert named_in(page) == set(EXPORTED)


# --- the board


def test_every_panel_says_what_it_shows_and_in_which_unit():
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in board()["panels"]}) == len(board()["panels"])


def test_panels_lie_beside_one_another_and_never_on_each_other():
    taken: set[tuple[int, int]] = set()
    for panel in board()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_datasource_is_a_variable_and_the_other_variables_are_asked_of_it():
    source, *others = board()["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert {one["name"] for one in others} == {"SessionName", "sweep"}
    assert {one["datasource"]["uid"] for one in others} == {"${datasource}"}
    used = set(re.findall(r"\$(\w+)", " ".join(queries()))) - {"__rate_interval"}
    assert used == {"SessionName", "sweep"}


def test_rays_own_boards_are_linked_by_their_ids():
    boards = files("ray.dashboard.modules.metrics.dashboards")
    sources = [(boards / f"{name}_dashboard_panels.py").read_text() for name in ("default", "train")]
    for link, source in zip(board()["links"], sources, strict=True):
        assert f'default_uid="{link["url"].removeprefix("/d/")}"' in source


# --- the alerts


def test_every_alert_says_what_is_wrong_and_what_to_do_and_stands_on_the_page():
    for alert in alerts():
        assert set(alert["annotations"]) == {"summary", "action"}
        assert alert["annotations"]["action"].rstrip().endswith(".")
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert f"`{alert['alert']}`" in PAGE.read_text()


def test_every_command_that_an_alert_names_is_one():
    commands = typer.main.get_command(app)
    named = re.findall(r"`rsi-ray ([a-z ]+?)(?: --.*?)?`", RULES.read_text())
    assert named
    for words in named:
        command: Any = commands
        for word in words.split():
            command = command.commands[word]


def test_every_alert_fires_in_one_of_its_tests():
    text = TESTS.read_text()
    for alert in alerts():
        fires = f'alertname="{alert["alert"]}", alertstate="firing"' in text
        assert fires or f"alertname: {alert['alert']}" in text, alert["alert"]


def run(command: list[str]) -> str:
    """What a command printed that failed; "" where it did not."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr if ran.returncode else ""


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    return found


@pytest.mark.parametrize("arguments", [("check", "rules", RULES), ("test", "rules", TESTS)])
def test_the_rules_pass_promtool(promtool: str, arguments: tuple[object, ...]):
    assert run([promtool, *map(str, arguments)]) == ""


def test_a_query_of_the_board_is_one_that_prometheus_can_read(promtool: str, tmp_path: Path):
    written = [
        {"record": "board", "labels": {"at": str(at)}, "expr": query.replace("$__rate_interval", "5m")}
        for at, query in enumerate(queries())
    ]
    (tmp_path / "board.yaml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": written}]}))
    assert run([promtool, "check", "rules", str(tmp_path / "board.yaml")]) == ""


# a test that passes whatever the thresholds are guards nothing
@pytest.mark.parametrize("alert", [alert["alert"] for alert in alerts()])
def test_a_tests_alert_that_fires_otherwise_is_seen(promtool: str, tmp_path: Path, alert: str):
    told = yaml.safe_load(RULES.read_text())
    for rule in told["groups"][0]["rules"]:
        if rule.get("alert") == alert:
            rule["expr"] = _a_little_off(rule["expr"])
    (tmp_path / RULES.name).write_text(yaml.safe_dump(told))
    shutil.copy(TESTS, tmp_path)
    assert alert in run([promtool, "test", "rules", str(tmp_path / TESTS.name)])


def _a_little_off(expr: str) -> str:
    """The same with a threshold that lets through what is just below, or nothing."""
    for exact, off in THRESHOLDS:
        if exact in expr:
            return expr.replace(exact, off)
    raise ValueError(f"{expr}: expected one of the thresholds {[exact for exact, _ in THRESHOLDS]}")


THRESHOLDS = (
    ("> 60", "> 59"),
    (">= 0.8", ">= 0.79"),
    (">= 0.95", ">= 0.949"),
    (">= 0.9", ">= 0.899"),
    ("1.5 *", "1.3 *"),
    ("4 * 3600", "5 * 3600"),
    ("> 0", "> 1"),
    ("< 1", "< 0"),
)
