import gc
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from rsi_ray import model_meter
from rsi_ray.model_meter import ModelMeter, count_call
from safety import LeaseLost
from safety.meter import Counted


@pytest.fixture
def meter():
    yield ModelMeter()
    nn.Module.__call__ = model_meter._call


@pytest.fixture
def told(meter):
    """What a meter that watches tells."""
    counted: list[Counted] = []
    meter.begin(counted.append)
    return counted


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3))


SMALL = Counted(params=10 * 20 + 20 + 20 * 3 + 3, forward_flops=2 * (10 * 20 + 20 * 3))


def test_a_model_is_counted_exactly_and_once_before_it_first_runs(told):
    model, batch = small(), torch.randn(32, 10)
    model(batch)
    nn.CrossEntropyLoss()(model(batch), torch.zeros(32, dtype=torch.long)).backward()
    assert told == [SMALL]


def test_models_that_are_alive_add_up_and_one_that_is_gone_does_not(told):
    first = small()
    first(torch.randn(1, 10))
    second = nn.Linear(4, 4, bias=False)
    second(torch.randn(8, 4))
    assert told[-1] == Counted(params=SMALL.params + 16, forward_flops=SMALL.forward_flops + 32)
    del first
    gc.collect()
    nn.Linear(2, 2, bias=False)(torch.randn(1, 2))
    assert told[-1] == Counted(params=20, forward_flops=40)


@pytest.mark.parametrize("part_first", [True, False])
def test_a_part_counts_with_its_model(told, part_first):
    model = small()
    calls = [lambda: model[0](torch.randn(1, 10)), lambda: model(torch.randn(1, 10))]
    for call in calls if part_first else reversed(calls):
        call()
    assert told[-1] == SMALL


def test_a_model_that_is_refused_does_not_run_nor_does_any_other_of_its_trial(meter):
    ran: list[str] = []

    class Marked(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            if not inputs.is_meta:
                ran.append("ran")
            return super().forward(inputs)

    def refuse(counted: Counted) -> None:
        raise LeaseLost(f"{counted.params} are too many")

    meter.begin(refuse)
    for _ in range(2):
        with pytest.raises(LeaseLost, match="12 are too many"):
            Marked(3, 3)(torch.ones(1, 3))
    assert ran == []
    meter.begin(lambda counted: None)
    Marked(3, 3)(torch.ones(1, 3))
    assert ran == ["ran"]


class Drawing(nn.Linear):
    """Draws from the processor's random numbers, wherever it runs."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * torch.rand((), device="cpu")


def test_counting_changes_neither_the_model_nor_what_is_drawn_next():
    model, batch = nn.Sequential(small(), Drawing(3, 3)), torch.randn(4, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    count_call(model, (batch,), {})
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Keywords(nn.Module):
    """Takes keywords, a mapping, and a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.constant = nn.Linear(3, 3), torch.ones(3)

    def forward(self, *, x: torch.Tensor, more: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.linear(x) + more["y"] + self.constant


def test_keywords_mappings_and_loose_tensors_are_counted():
    keywords = {"x": torch.ones(5, 3), "more": {"y": torch.ones(5, 3)}}
    assert count_call(Keywords(), (), keywords) == Counted(params=12, forward_flops=18)


@pytest.mark.parametrize("made", [False, True])
def test_a_lazy_model_is_counted_before_and_after_it_is_made(made):
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU())
    if made:
        model(torch.ones(2, 5))
    assert count_call(model, (torch.ones(2, 5),), {}) == Counted(params=24, forward_flops=40)


def test_a_compiled_model_is_counted_as_what_it_was_made_from(told):
    model = small()
    compiled: Callable[..., torch.Tensor] = torch.compile(model, backend="eager", fullgraph=True)
    compiled(torch.randn(4, 10))
    model(torch.randn(4, 10))
    compiled(torch.randn(4, 10))
    assert told == [SMALL]


class Reading(nn.Linear):
    """Looks at its input."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) if inputs.sum() > 0 else inputs


def test_what_can_not_be_counted_tells_why_and_its_parameters():
    found = count_call(Reading(3, 3), (torch.ones(2, 3),), {})
    assert (found.params, found.forward_flops) == (12, None)
    assert found.reason.startswith("Reading: RuntimeError: ")


def test_one_that_can_not_be_counted_makes_the_sum_unknown(told):
    kept = small(), Reading(3, 3)
    kept[0](torch.randn(1, 10))
    kept[1](torch.ones(1, 3))
    assert (told[-1].params, told[-1].forward_flops) == (SMALL.params + 12, None)
    assert "Reading" in told[-1].reason


def test_another_trial_is_counted_from_nothing(meter, told):
    model = small()
    model(torch.randn(1, 10))
    again: list[Counted] = []
    meter.begin(again.append)
    model(torch.randn(1, 10))
    assert (told, again) == ([SMALL], [SMALL])


@pytest.mark.usefixtures("meter")
def test_a_model_runs_as_ever_before_a_trial_begins():
    assert small()(torch.randn(1, 10)).shape == (1, 3)


# --- what counts by itself, and what counts with another


class Hiding(nn.Module):
    """Keeps modules where torch doesn't find them."""

    def __init__(self, shown: nn.Module, *hidden: nn.Module) -> None:
        super().__init__()
        self.shown, self.hidden = shown, list(hidden)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for module in (self.shown, *self.hidden):
            inputs = module(inputs)
        return inputs


def test_a_module_in_a_plain_list_counts_by_itself(told):
    model = Hiding(nn.ReLU(), small())
    for _ in range(2):
        model(torch.randn(4, 10))
    assert told == [SMALL]


def test_a_module_in_a_plain_list_of_one_with_parameters_adds_its_own(told):
    model = Hiding(nn.Linear(10, 10), small())
    model(torch.randn(4, 10))
    assert (told[-1].params, told[-1].forward_flops) == (SMALL.params + 110, None)


def test_a_part_that_is_added_after_the_first_call_counts_when_it_is_called(told):
    model = nn.Sequential(nn.Linear(10, 10))
    model(torch.randn(4, 10))
    model.append(nn.Linear(10, 3))
    model(torch.randn(4, 10))
    assert told[-1] == Counted(params=110 + 33, forward_flops=200 + 60)


class Making(nn.Module):
    """Makes its parts in its first call."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "last"):
            self.last = nn.Linear(3, 3, device=inputs.device)
        return self.last(inputs)


def test_a_part_that_is_made_in_the_first_call_counts_once(told):
    model = nn.Sequential(small(), Making())
    for _ in range(2):
        model(torch.randn(4, 10))
    assert told == [Counted(params=SMALL.params + 12, forward_flops=SMALL.forward_flops + 18)]


def test_a_module_that_had_no_parameters_at_first_counts_whole_when_it_has(told):
    model = nn.Sequential(nn.ReLU())
    model(torch.randn(4, 10))
    model.append(Reading(10, 10))
    model(torch.randn(4, 10))
    assert [counted.params for counted in told] == [110]


# --- samples of a call


@pytest.mark.parametrize(
    ("module", "shape", "same", "batch"),
    [
        (nn.Linear(8, 8), (8,), nn.Linear(8, 8), (1, 8)),
        (nn.LSTM(8, 8), (10, 4, 8), nn.LSTM(8, 8, batch_first=True), (1, 10, 8)),
        (nn.LSTM(8, 8), (10, 8), nn.LSTM(8, 8, batch_first=True), (1, 10, 8)),
        (
            nn.TransformerEncoderLayer(8, 2, 16),
            (10, 4, 8),
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            (2, 10, 8),
        ),
    ],
)
def test_a_sample_costs_the_same_without_a_batch_and_with_its_sequence_first(module, shape, same, batch):
    found = count_call(module, (torch.randn(shape),), {})
    assert found == count_call(same, (torch.randn(batch),), {})
    assert found.forward_flops


def test_a_vector_of_indices_is_a_batch():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3, bias=False))
    assert count_call(model, (torch.zeros(7, dtype=torch.long),), {}).forward_flops == 24


# --- what a replay leaves alone


class Throwing(nn.Linear):
    """Draws from the random numbers of Python and of numpy."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * random.random() * float(np.random.rand())


def test_counting_changes_none_of_the_random_numbers_drawn_next():
    def drawn(count: bool) -> tuple[float, float]:
        random.seed(1)
        np.random.seed(1)
        if count:
            assert count_call(Throwing(3, 3), (torch.ones(1, 3),), {}).forward_flops == 18
        return random.random(), np.random.rand()

    assert drawn(count=True) == drawn(count=False)


def test_hooks_of_a_model_hear_of_no_replay_and_stay():
    model, heard = nn.Linear(3, 3), []
    model.register_forward_hook(lambda module, inputs, output: heard.append(output.sum().item()))
    model.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0].sum().item()))
    assert count_call(model, (torch.ones(1, 3),), {}) == Counted(params=12, forward_flops=18)
    assert heard == []
    model(torch.ones(1, 3))
    assert len(heard) == 2


# --- compiled functions


def steps(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(inputs).sum()


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_model_in_a_compiled_function_is_counted_each_time_that_another_is_traced(told, fullgraph):
    step = torch.compile(steps, backend="eager", fullgraph=fullgraph)
    models = small(), nn.Linear(10, 10)
    for model in (models[0], models[0], models[1]):
        step(model, torch.randn(4, 10))
    assert told == [SMALL, Counted(params=SMALL.params + 110, forward_flops=SMALL.forward_flops + 200)]


def test_a_batch_of_another_size_is_no_other_model_and_is_compiled_for_every_size(told):
    traced = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        traced.append(graph)
        return graph.forward

    step, model = torch.compile(steps, backend=backend), small()
    for size in range(4, 9):
        step(model, torch.randn(size, 10))
    assert (told, len(traced)) == ([SMALL], 2)


def test_a_traced_call_of_dynamic_size_is_counted_without_fixing_it(told):
    traced = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        traced.append(graph)
        return graph.forward

    step, model = torch.compile(steps, backend=backend, dynamic=True), small()
    for size in range(4, 9):
        step(model, torch.randn(size, 10))
    assert (told, len(traced)) == ([SMALL], 1)


class Odd:
    """No value that a trace can tell."""


class Scaled(nn.Linear):
    """Takes such a value."""

    def forward(self, inputs: torch.Tensor, odd: Odd) -> torch.Tensor:
        return super().forward(inputs)


def test_a_traced_call_whose_arguments_can_not_be_told_is_counted_without_its_flops(told):
    model, odd = Scaled(3, 3), Odd()
    torch.compile(lambda inputs: model(inputs, odd), backend="eager")(torch.ones(1, 3))
    assert (told[-1].params, told[-1].forward_flops) == (12, None)


def test_another_trial_traces_a_compiled_function_again(meter, told):
    step, model = torch.compile(steps, backend="eager"), small()
    step(model, torch.randn(4, 10))
    again: list[Counted] = []
    meter.begin(again.append)
    step(model, torch.randn(4, 10))
    assert again == told == [SMALL]


def test_a_model_that_is_refused_does_not_run_in_a_compiled_function(meter):
    ran: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        ran.append(len(inputs))
        return graph.forward

    def refuse(counted: Counted) -> None:
        raise LeaseLost(f"{counted.params} are too many")

    meter.begin(refuse)
    step = torch.compile(steps, backend=backend)
    for _ in range(2):
        with pytest.raises(Exception, match=f"{SMALL.params} are too many"):
            step(small(), torch.randn(4, 10))
    assert ran == []
