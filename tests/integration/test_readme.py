"""Everything that README.md shows runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rsi_ray.approvers import Policy
from rsi_ray.commands import app
from rsi_ray.config import parse_config
from safety import Bounds, Limits, limits_from_dict, validate
from safety.document import parse_yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RSI_RAY = Path(sys.executable).with_name("rsi-ray")
TINY = """\
name: tiny
trials: 2
concurrent: 1
space: {depth: [1, 1], widths: [32]}
training: {epochs: 2, steps_per_epoch: 2}
limits:
  bounds: {max_params: 1e6, max_flops: 1e9, max_memory: 1e9}
  cluster: {train_flops: 1e18}
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    found = [shlex.split(line) for line in lines if line.startswith(f"{program} ")]
    assert found, program
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder in which `rsi-ray run my.yaml` has run, as the README says."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "my.yaml").write_text(TINY)
    ran = rsi_ray(folder, "run", "my.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def rsi_ray(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [RSI_RAY, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.ray
def test_python_blocks_run_one_after_the_other(folder) -> None:
    script = folder / "readme.py"
    script.write_text("\n".join(blocks("python")))
    # Tune writes below the home folder where no storage is named
    home = {**os.environ, "HOME": str(folder)}
    command = [sys.executable, str(script)]
    done = subprocess.run(
        command, cwd=folder, env=home, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "{'width': 16}" in done.stdout
    assert "16,777,216 parameters" in done.stdout + done.stderr


@pytest.mark.ray
def test_table_of_files_is_what_a_run_leaves(folder) -> None:
    run = next((folder / "rsi_results").glob("tiny-*"))
    places = re.findall(r"^\| `(rsi_results/[^`]*)`", README, flags=re.MULTILINE)
    assert len(places) == 5
    for place in places:
        assert (folder / place.replace("RUN", run.name)).exists(), place


@pytest.mark.ray
def test_replay_gets_the_same_score(folder) -> None:
    run = next((folder / "rsi_results").glob("tiny-*"))
    replayed = rsi_ray(folder, "replay", f"{run.name}/0")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert replayed.stdout.startswith(f"{run.name}/0: ")


def test_yaml_blocks_parse(tmp_path) -> None:
    (tmp_path / "limits.yaml").write_text("bounds: {max_params: 1e6, max_flops: 1e9, max_memory: 1e9}\n")
    rows = "".join(f"{row},{row * row},{'rose' if row % 2 else 'lily'}\n" for row in range(600))
    (tmp_path / "measurements.csv").write_text(f"length,area,species\n{rows}")
    found = blocks("yaml")
    assert found
    for block in found:
        document = parse_yaml(block, source="README.md")
        if "bounds" in document.data:
            validate(Limits, document)
        else:
            parse_config(document, folder=tmp_path)


def test_limits_in_python_and_in_yaml_are_the_same() -> None:
    names: dict[str, object] = {}
    exec(next(block for block in blocks("python") if "limits = limits_from_dict" in block), names)
    block = next(block for block in blocks("yaml") if block.startswith("max_generations"))
    data = dict(parse_yaml(block, source="README.md").data)
    assert {"sweep", "cluster"} <= data.keys()
    for budgets in ("sweep", "cluster"):
        del data[budgets]
    assert limits_from_dict(data).digest == names["limits"].digest


@pytest.mark.parametrize("command", commands("rsi-ray"), ids=" ".join)
def test_commands_exist_with_their_options(command) -> None:
    _, name, *arguments = command
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in shown.output


@pytest.mark.parametrize("command", commands("make"), ids=" ".join)
def test_make_targets_exist(command) -> None:
    subprocess.run(["make", "-n", *command[1:]], cwd=ROOT, capture_output=True, check=True)


def test_printed_config_is_a_sweeps_file() -> None:
    printed = CliRunner().invoke(app, ["config"])
    assert printed.exit_code == 0
    parse_config(parse_yaml(printed.output, source="my.yaml"), folder=Path())


def test_usage_errors_exit_with_2_and_one_line(tmp_path, command_here) -> None:
    (tmp_path / "wrong.yaml").write_text("trails: 3\n")
    code, _, errors = command_here("run", "wrong.yaml")
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "wrong.yaml"]


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_keys_that_are_named_are_keys_of_the_limits() -> None:
    for name in re.findall(r"`((?:max|min|require)_[a-z_]+)`", README):
        assert name in {*Limits.model_fields, *Bounds.model_fields, *Policy.model_fields}, name


def test_tests_that_are_named_are_there() -> None:
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"\| `(?:(tests/[\w/]+\.py)|(test_\w+))` \|$", README, flags=re.MULTILINE)
    assert len(named) > 10
    for path, name in named:
        assert (ROOT / path).is_file() if path else f"def {name}(" in written, path or name
