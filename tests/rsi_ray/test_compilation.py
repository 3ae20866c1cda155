"""When steps are compiled, and that what is compiled trains the same."""

import re
import shutil
from dataclasses import replace

import pytest
import torch

from rsi_ray import Sweep, compilation, train
from rsi_ray.compilation import PAYING_FLOPS, PAYING_STEPS, pays
from rsi_ray.errors import SweepError, TrainingError
from rsi_ray.training import Training
from tests.rsi_ray.test_training_job import CONFIG, TRAINING, job

SHELL = shutil.which("sh")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("choice", "device", "flops", "steps", "expected"),
    [
        ("auto", GPU, PAYING_FLOPS, 1, True),
        ("auto", GPU, PAYING_FLOPS - 1, PAYING_STEPS - 1, False),
        ("auto", GPU, 1, PAYING_STEPS, True),
        ("auto", CPU, 10**24, 10**9, False),
        ("always", CPU, 1, 1, True),
        ("never", GPU, 10**24, 10**9, False),
    ],
)
def test_steps_are_compiled_where_it_is_asked_for_or_where_it_pays(
    choice, device, flops, steps, expected, monkeypatch
):
    monkeypatch.setattr(compilation, "lacking", lambda _device: "")
    assert pays(choice, device, flops=flops, steps=steps) is expected


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The folder of all programs there are."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def compiler_in(folder, name, *, status=0):
    program = folder / name
    program.write_text(f"#!{SHELL}\nexit {status}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("device", "name", "told"),
    [
        ("cuda", "gcc", r"no compiler \(CC, gcc or clang\): install gcc, libc6-dev and python3-dev"),
        ("cuda", "clang", "install gcc"),
        ("cpu", "g++", r"no compiler \(CXX, g\+\+\): install g\+\+, libc6-dev and python3-dev"),
    ],
)
def test_a_host_without_a_compiler_is_told_what_to_install(device, name, told, path):
    assert re.search(told, compilation.lacking(device))
    compiler_in(path, name)
    assert compilation.lacking(device) == ""


def test_a_compiler_that_the_environment_names_is_the_one_that_counts(path, monkeypatch):
    compiler_in(path, "gcc")
    monkeypatch.setenv("CC", "/nowhere/cc")
    assert "/nowhere/cc finds no Python.h" in compilation.lacking("cuda")
    monkeypatch.setenv("CC", compiler_in(path, "mine"))
    (path / "gcc").unlink()
    assert compilation.lacking("cuda") == ""


def test_a_compiler_without_the_headers_of_python_is_none(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    if not shutil.which("gcc") or compilation.lacking("cuda"):
        pytest.skip("needs gcc and Python's headers")
    monkeypatch.setattr(compilation.sysconfig, "get_path", lambda *_asked: "/nowhere")
    assert "gcc finds no Python.h in /nowhere" in compilation.lacking("cuda")


def test_where_a_host_can_not_compile_auto_says_so_once_and_always_is_refused(path, caplog):
    compilation._warn_once.cache_clear()
    for _ in range(2):
        assert not pays("auto", GPU, flops=PAYING_FLOPS, steps=1)
    (said,) = caplog.messages
    assert said.startswith("steps are not compiled: there is no compiler")
    with pytest.raises(TrainingError, match=r"^training\.compile: always, and there is no .*install g"):
        pays("always", GPU, flops=1, steps=1)
    assert not pays("never", GPU, flops=PAYING_FLOPS, steps=1)


def test_what_is_always_compiled_is_trained_by_one_worker(tmp_path):
    sweep = Sweep(None, None, {}, training=replace(TRAINING, compile="always"), workers=2, storage=tmp_path)
    with pytest.raises(SweepError, match=r"training\.compile: always, which takes workers: 1"):
        sweep.checked_plan()


def test_a_choice_that_is_none_is_refused():
    with pytest.raises(ValueError, match="compile must be one of auto, always, never, not 'yes'"):
        Training(compile="yes")


def test_a_training_is_compiled_by_what_it_plans(monkeypatch):
    asked = []
    monkeypatch.setattr(train, "pays", lambda *given, **planned: bool(asked.append((given, planned))))
    one = job()
    one.trainer(CONFIG)
    assert asked == [(("auto", CPU), {"flops": one.price(CONFIG).train_flops, "steps": 6})]


def test_each_candidate_is_compiled_anew_in_its_own_process(monkeypatch):
    done = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: done.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda model: done.append(model) or model)
    model = torch.nn.Linear(1, 1)
    assert compilation.compiled(model) is model
    assert done == ["reset", model]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.skipif(
    not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU: no g++ here"
)
def test_what_is_compiled_trains_the_same_and_keeps_the_names_of_its_weights():
    always, never = (
        job(training=replace(TRAINING, compile=choice)).trainer(CONFIG) for choice in ("always", "never")
    )
    assert always.run_epoch().loss == pytest.approx(never.run_epoch().loss, rel=1e-5)
    compiled, plain = always.state(), never.state()
    assert list(compiled) == list(plain)
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5)
    never.load_state(compiled)
