import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import mse_loss

from search_spaces import MLPSpace, MLPSpec, RandomTrial, TableHead
from tests.contracts.space_contract import SpaceContract, draw
from tests.contracts.training_step import forward_and_backward

PRICE = TableHead(name="price", outputs=1, features=7)
KIND = TableHead(name="kind", outputs=3, features=7)

ALONE = MLPSpace(heads=(PRICE,), batch_size=5, depth=(1, 3), widths=(5, 8, 16))
SHARED = replace(ALONE, heads=(PRICE, KIND), dropouts=(0.0, 0.2))
SPEC = MLPSpec(widths=(8, 8, 16), activation="gelu", norm="layernorm", residual=True, dropout=0.0)
BAD_SIZES = (-1, 0, True, 1e300, 2**63, "12", None, 3.0)


def rows(space, *, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {head.name: torch.randn(batch, head.features, generator=generator) for head in space.heads}


class TestOneHead(SpaceContract):
    draws = 700

    @pytest.fixture
    def space(self):
        return ALONE


class TestSharedBackbone(SpaceContract):
    draws = 300

    @pytest.fixture
    def space(self):
        return SHARED


@pytest.mark.parametrize("seed", range(8))
def test_every_head_has_its_outputs_for_each_row(seed):
    outputs = SHARED.build(draw(SHARED, seed))(rows(SHARED))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {"price": (4, 1), "kind": (4, 3)}


def test_a_model_may_be_asked_for_some_of_its_heads():
    model, inputs = SHARED.build(SPEC), rows(SHARED)
    torch.testing.assert_close(model({"kind": inputs["kind"]})["kind"], model(inputs)["kind"])


@pytest.mark.parametrize("name", ["keys", "pop", "type"])
def test_a_task_may_be_called_as_a_method_of_the_dict_that_holds_its_readout(name):
    space = replace(ALONE, heads=(replace(PRICE, name=name),))
    assert set(space.build(SPEC)(rows(space))) == {name}


def test_a_width_is_asked_only_where_its_layer_exists():
    for seed in range(100):
        trial = RandomTrial(random.Random(seed))
        spec = ALONE.suggest(trial)
        asked = {name for name in trial.params if name.startswith("width_")}
        assert trial.params["depth"] == len(spec.widths)
        assert asked == {f"width_{index}" for index in range(len(spec.widths))}


def test_residual_is_asked_only_where_two_layers_of_one_width_are_on_end():
    asked_at = {True: 0, False: 0}
    for seed in range(100):
        trial = RandomTrial(random.Random(seed))
        widths = ALONE.suggest(trial).widths
        has_equal = any(one == other for one, other in pairwise(widths))
        assert ("residual" in trial.params) == has_equal
        asked_at[has_equal] += 1
    assert min(asked_at.values()) > 10


def test_what_is_settled_is_not_asked():
    space = MLPSpace(
        heads=(PRICE,),
        batch_size=1,
        depth=(2, 2),
        widths=(8,),
        activations=("silu",),
        norms=("none",),
        residual=(True,),
        dropouts=(0.3,),
    )
    trial = RandomTrial(random.Random(0))
    expected = MLPSpec(widths=(8, 8), activation="silu", norm="none", residual=True, dropout=0.3)
    assert space.suggest(trial) == expected
    assert trial.params == {}


@pytest.mark.parametrize("seed", range(24))
def test_a_training_step_costs_what_the_counter_sees_of_forward_and_backward(seed):
    spec = draw(SHARED, seed)
    flops, _ = forward_and_backward(SHARED, spec)
    assert SHARED.cost(spec).train_step_flops == flops


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "swiglu"])
@pytest.mark.parametrize("norm", ["none", "layernorm"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_memory_holds_weights_gradients_moments_and_what_the_backward_needs(activation, norm, dropout):
    spec = MLPSpec(widths=(64, 64, 32), activation=activation, norm=norm, residual=True, dropout=dropout)
    _, kept = forward_and_backward(SHARED, spec)
    cost = SHARED.cost(spec)
    assert 16 * cost.params + kept <= cost.memory_bytes <= 16 * cost.params + 1.5 * kept


def test_a_searched_batch_size_is_priced():
    once, thrice = (replace(SHARED, batch_size=size).cost(SPEC) for size in (1, 3))
    assert thrice.train_step_flops == 3 * once.train_step_flops
    assert thrice.memory_bytes - 16 * thrice.params == 3 * (once.memory_bytes - 16 * once.params)


def test_a_residual_layer_adds_its_input_exactly_and_only_where_the_widths_are_equal():
    model = ALONE.build(replace(SPEC, norm="none"))
    first, second, third, _ = model.backbone
    assert [layer.is_residual for layer in (first, second, third)] == [False, True, False]
    x = torch.randn(4, 8)
    torch.nn.init.zeros_(second.linear.weight)
    torch.nn.init.zeros_(second.linear.bias)
    assert torch.equal(second(x), x)


def test_the_first_layer_is_never_residual_even_where_it_is_as_wide_as_the_table():
    model = ALONE.build(replace(SPEC, widths=(7, 7)))
    assert [layer.is_residual for layer in model.backbone[:2]] == [False, True]


def test_without_residual_nothing_is_added():
    assert not any(layer.is_residual for layer in ALONE.build(replace(SPEC, residual=False)).backbone[:3])


def test_a_norm_is_of_every_hidden_layer_and_not_of_the_table():
    model, seen = ALONE.build(SPEC), []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    table = rows(ALONE)["price"]
    model({"price": table})
    assert torch.equal(seen[0], table)
    for hidden in seen[1:]:
        torch.testing.assert_close(hidden.mean(-1), torch.zeros(4), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "hidden"),
    [
        ("relu", torch.nn.functional.relu),
        ("gelu", torch.nn.functional.gelu),
        ("silu", torch.nn.functional.silu),
        ("swiglu", lambda x: torch.nn.functional.silu(x[:, :8]) * x[:, 8:]),
    ],
)
def test_a_hidden_layer_is_a_linear_and_its_activation(activation, hidden):
    spec = MLPSpec(widths=(8,), activation=activation, norm="none", residual=False)
    layer, x = ALONE.build(spec).backbone[0], rows(ALONE)["price"]
    torch.testing.assert_close(layer(x), hidden(layer.linear(x)))


def test_dropout_is_of_the_training_alone():
    torch.manual_seed(0)
    model, inputs = ALONE.build(replace(SPEC, dropout=0.5)), rows(ALONE)
    assert not torch.equal(model.train()(inputs)["price"], model(inputs)["price"])
    assert torch.equal(model.eval()(inputs)["price"], model(inputs)["price"])


def test_a_model_filled_after_it_was_made_without_memory_works_like_one_made_at_once():
    with torch.device("meta"):
        late = ALONE.build(SPEC)
    late.to_empty(device="cpu")
    torch.manual_seed(0)
    late.init_weights()
    at_once = ALONE.build(SPEC)
    torch.manual_seed(0)
    at_once.init_weights()
    assert torch.equal(late(rows(ALONE))["price"], at_once(rows(ALONE))["price"])


@pytest.mark.parametrize("seed", range(6))
def test_a_few_steps_fit_a_product_of_two_features(seed):
    torch.manual_seed(seed)
    x = rows(ALONE, batch=128)["price"]
    y = x[:, :1] * x[:, 1:2]
    space = replace(ALONE, widths=(32, 64), dropouts=(0.0, 0.1))
    model = space.build(draw(space, seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = mse_loss(model({"price": x})["price"], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.parametrize("bad", BAD_SIZES)
@pytest.mark.parametrize("field", ["outputs", "features"])
def test_a_bad_size_of_a_head_is_refused_by_its_name(field, bad):
    with pytest.raises(ValueError, match=rf"^{field}: .*expected an integer"):
        replace(PRICE, **{field: bad})


@pytest.mark.parametrize("bad", BAD_SIZES)
def test_a_bad_width_is_refused_by_its_name(bad):
    with pytest.raises(ValueError, match=r"^widths: .*expected an integer"):
        replace(SPEC, widths=(8, bad))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"widths": ()}, "widths"),
        ({"widths": [8, 8]}, "widths"),
        ({"activation": "tanh"}, "activation"),
        ({"norm": "batchnorm"}, "norm"),
        ({"residual": 1}, "residual"),
        ({"widths": (8, 16)}, "residual"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"dropout": None}, "dropout"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(change, name):
    with pytest.raises(ValueError, match=rf"^{name}: .*expected"):
        replace(SPEC, **change)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"heads": ()}, "heads"),
        ({"heads": [PRICE]}, "heads"),
        ({"heads": (PRICE, PRICE)}, "heads"),
        ({"heads": (PRICE, replace(KIND, features=8))}, "heads"),
        ({"batch_size": 0}, "batch_size"),
        ({"depth": (0, 1)}, "depth"),
        ({"depth": (2, 1)}, "depth"),
        ({"widths": (8, 8)}, "widths"),
        ({"activations": ("tanh",)}, "activations"),
        ({"norms": ()}, "norms"),
        ({"residual": (1,)}, "residual"),
        ({"dropouts": (0.1, 2.0)}, "dropouts"),
    ],
)
def test_a_space_that_could_propose_what_cannot_be_built_is_refused(change, name):
    with pytest.raises(ValueError, match=rf"^{name}: .*expected"):
        replace(ALONE, **change)


def test_every_problem_has_a_line_of_its_own():
    with pytest.raises(ValueError, match="widths") as caught:
        replace(SPEC, widths=(0,), norm="batchnorm", dropout=2.0)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["widths", "norm", "dropout"]
