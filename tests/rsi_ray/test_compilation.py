"""When steps are compiled, and that what is compiled trains the same."""

import shutil
from dataclasses import replace

import pytest
import torch

from rsi_ray import compilation, train
from rsi_ray.compilation import PAYING_FLOPS, PAYING_STEPS, pays
from rsi_ray.training import Training
from tests.rsi_ray.test_training_job import CONFIG, TRAINING, job

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
def test_steps_are_compiled_where_it_is_asked_for_or_where_it_pays(choice, device, flops, steps, expected):
    assert pays(choice, device, flops=flops, steps=steps) is expected


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
