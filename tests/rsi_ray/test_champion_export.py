"""Champions for elsewhere: what is exported computes what the champion computes."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from rsi_ray.champion import ChampionStore
from rsi_ray.champion_export import FORMATS, unapproved
from rsi_ray.champion_version import Version
from rsi_ray.champion_weights import fill, model_of, weights_of
from rsi_ray.description import Json, describe, describe_call
from rsi_ray.errors import ChampionError
from safety import Ledger, Promoted, Promotion, artifact_digest
from search_spaces import ConvSpace, ImageHead, MLPSpace, TableHead
from search_spaces.convnet import ConvSpec, ConvStage
from search_spaces.mlp import MLPSpec
from tests.rsi_ray.champions import SPACE, SPEC, candidate, open_lineage

IMAGES = ConvSpace(
    heads=(
        ImageHead(name="digits", classes=3, channels=1, height=8, width=8),
        ImageHead(name="signs", classes=2, channels=1, height=4, width=6),
    ),
    batch_size=2,
)
STAGE = ConvStage(
    depth=1, width=8, kernel_size=3, expansion=2, groups=16, squeeze_excite=True, downsample=None
)
TABLES = MLPSpace(heads=(TableHead(name="cost", outputs=1, features=4),), batch_size=2)

CASES = {
    "transformer": (SPACE, SPEC),
    "transformer, untied": (
        SPACE,
        replace(SPEC, tied=False, norm="layernorm", position="learned", ffn_kind="swiglu", dropout=0.1),
    ),
    "convnet": (
        IMAGES,
        ConvSpec(
            stages=(STAGE, replace(STAGE, width=16, groups=1, expansion=1, downsample="max")), dropout=0.2
        ),
    ),
    "mlp": (TABLES, MLPSpec(widths=(16, 16), activation="swiglu", norm="layernorm", residual=True)),
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    open_lineage(opened)
    yield opened
    opened.close()


@pytest.fixture
def adopt(ledger: Ledger, tmp_path: Path) -> Callable[..., Version]:
    """A base with the weights of a model of the space's."""

    def adopt(space: Any, spec: Any, told: Json = None, lineage: str = "line") -> Version:
        torch.manual_seed(1)
        weights = weights_of(space.build(spec).state_dict())
        given = {"space": told or describe(space), "spec": describe(spec), "inherits": False}
        return ChampionStore(tmp_path / lineage, ledger).adopt_base(candidate(weights=weights, **given))

    return adopt


def inputs_of(space: Any, batch: int) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {
        name: torch.randint(0, 8, (batch, *sample.shape))
        if sample.dtype == "int64"
        else torch.randn(batch, *sample.shape)
        for name, sample in space.samples().items()
    }


def outputs_of(version: Version, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        found: dict[str, Tensor] = model_of(version)(inputs)
    return found


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, output in wanted.items():
        torch.testing.assert_close(found[name], output)


PROGRAM = """
import runpy, sys, torch
# whoever imports one of them fails
sys.modules |= dict.fromkeys(("rsi_ray", "safety", "search_spaces", "own_model_here"))
for out in sys.argv[1:]:
    module = runpy.run_path(out)
    with torch.no_grad():
        torch.save(module["load_model"]()(torch.load(out + ".inputs", weights_only=True)), out + ".outputs")
"""


def run_alone(files: Mapping[Path, dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Outputs of exported files, in a process that has nothing of this project."""
    for file, inputs in files.items():
        torch.save(inputs, f"{file}.inputs")
    command = [sys.executable, "-I", "-c", PROGRAM, *map(str, files)]
    done = subprocess.run(command, cwd=next(iter(files)).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(f"{file}.outputs", weights_only=True) for file in files]


OWN = """
from dataclasses import dataclass

import torch.nn.functional as F
from torch import nn

from search_spaces import Sample

SLOPE = 0.1


def bend(x):
    return F.leaky_relu(x, SLOPE)


class Own(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 2)

    def forward(self, inputs):
        return {"rows": self.last(bend(self.first(inputs["rows"])))}


class OwnSpace:
    def __init__(self, widths, heads=()):
        self.widths = widths

    def suggest(self, trial):
        return (trial.suggest_categorical("width", self.widths),)

    def samples(self):
        return {"rows": Sample(shape=(4,), dtype="float32")}

    def build(self, spec):
        return Own(*spec)


if __name__ == "__main__":
    print("not needed")
"""


@pytest.mark.processes
def test_a_plain_python_file_rebuilds_the_champion_alone_and_refuses_other_weights(
    adopt: Callable[..., Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own_model_here.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_model_here").OwnSpace([4, 8])
    told = describe_call("own_model_here:OwnSpace", {"widths": [4, 8]}, {})
    cases = [(space, spec, None) for space, spec in CASES.values()] + [(own, (8,), told)]
    files, wanted = {}, []
    for number, (space, spec, described) in enumerate(cases):
        version = adopt(space, spec, described, f"line{number}")
        written = FORMATS["python"](version, tmp_path / f"model{number}.py")
        assert written == [tmp_path / f"model{number}.py", tmp_path / f"model{number}.safetensors"]
        files[written[0]] = inputs_of(space, 3)
        wanted.append(outputs_of(version, files[written[0]]))
    assert "not needed" not in (tmp_path / "model4.py").read_text()
    for found, output in zip(run_alone(files), wanted, strict=True):
        same(found, output)
    weights = tmp_path / "model0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    load = runpy.run_path(str(tmp_path / "model0.py"))["load_model"]
    with pytest.raises(ValueError, match="other weights; expected a file with the SHA-256"):
        load()
    monkeypatch.delitem(sys.modules, "own_model_here")


@pytest.mark.parametrize("case", ["transformer", "convnet"])
def test_an_exported_program_takes_any_batch_of_each_head(
    adopt: Callable[..., Version], tmp_path: Path, case: str
):
    space, spec = CASES[case]
    version = adopt(space, spec)
    (file,) = FORMATS["torch_export"](version, tmp_path / "model.pt2")
    program = torch.export.load(file).module()
    for batch in (1, 5):
        inputs = inputs_of(space, batch)
        same(program(inputs), outputs_of(version, inputs))
    inputs = {name: rows[: 1 + place] for place, (name, rows) in enumerate(inputs_of(space, 4).items())}
    same(program(inputs), outputs_of(version, inputs))


def test_a_copy_has_the_artifacts_digest(adopt: Callable[..., Version], tmp_path: Path):
    version = adopt(*CASES["mlp"])
    (file,) = FORMATS["safetensors"](version, tmp_path / "copy.safetensors")
    assert artifact_digest(file) == version.artifact


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_writes_over_nothing_and_reads_only_what_was_approved(
    adopt: Callable[..., Version], tmp_path: Path, form: str
):
    version, out = adopt(*CASES["mlp"]), tmp_path / "there"
    out.write_text("mine")
    with pytest.raises(ChampionError, match="there already; expected the name of a new file"):
        FORMATS[form](version, out)
    assert out.read_text() == "mine"
    with pytest.raises(ChampionError, match="no folder"):
        FORMATS[form](version, tmp_path / "no" / "where")
    version.path.write_bytes(b"other")
    with pytest.raises(ChampionError, match="its digest is"):
        FORMATS[form](version, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_candidate_leaves_as_safetensors_alone(
    adopt: Callable[..., Version], ledger: Ledger, tmp_path: Path
):
    adopt(*CASES["mlp"])
    space = describe_call("os:mkdir", {"path": str(tmp_path / "run")}, {})
    staged = ChampionStore(tmp_path / "line", ledger).stage(candidate(1, space=space))
    for form in ("python", "torch_export"):
        with pytest.raises(ChampionError, match="never promoted, and names code to import"):
            FORMATS[form](staged, tmp_path / "out.x")
    assert FORMATS["safetensors"](staged, tmp_path / "out.x") == [tmp_path / "out.x"]
    assert not (tmp_path / "run").exists()


def test_what_nobody_stands_by_says_so(adopt: Callable[..., Version], ledger: Ledger, tmp_path: Path):
    base, out = adopt(*CASES["mlp"]), tmp_path / "model.py"
    FORMATS["python"](base, out)
    assert out.read_text().startswith('"""line, generation 0 (not approved: the base): its model')
    staged = ChampionStore(tmp_path / "line", ledger).stage(candidate(1))
    assert unapproved(staged) == "not approved: a candidate that was never promoted"
    promotion = Promotion(lineage="line", key="k", at_ms=0, old=0.5, new=0.6)
    promoted = replace(staged, state="promoted", promoted=Promoted(promotion=promotion, champion=None))
    assert unapproved(promoted) == "not approved: its limits asked for no approval"
    assert unapproved(replace(promoted, state="rolled back")).startswith("rolled back")


def test_a_space_that_can_only_be_shown_is_told_in_one_line(adopt: Callable[..., Version], tmp_path: Path):
    version = adopt(*CASES["mlp"], {"shown": "<Mine>"})
    for form in ("python", "torch_export"):
        with pytest.raises(ChampionError, match="<Mine>"):
            FORMATS[form](version, tmp_path / "out.x")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(2, 2, bias=False)
        self.two = nn.Linear(2, 2, bias=False)
        self.two.weight = self.one.weight
        self.register_buffer("eps", torch.tensor(0.25))


def test_tied_weights_and_persistent_buffers_come_back():
    model, other = Tied(), Tied()
    model.eps.fill_(0.5)
    found = load(weights_of(model.state_dict()))
    assert found.keys() == {"one.weight", "two.weight", "eps"}
    fill(other, {name: found[name] for name in ("one.weight", "eps")})
    assert other.eps == 0.5
    assert torch.equal(other.two.weight, model.one.weight)
    for wrong in (
        {"one.weight": found["one.weight"]},
        {**found, "more": found["eps"]},
        {"eps": found["eps"]},
    ):
        with pytest.raises(RuntimeError, match=r"missing: .*unexpected: "):
            fill(other, wrong)
