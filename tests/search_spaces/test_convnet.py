import random
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from search_spaces import ConvSpace, ConvSpec, ConvStage, ImageHead, RandomTrial
from search_spaces.convnet_model import SqueezeExcite
from search_spaces.given_trial import spec_from
from search_spaces.measure import measure_space
from tests.contracts.space_contract import SpaceContract, draw
from tests.contracts.training_step import GROUPED, forward_and_backward

DIGITS = ImageHead(name="digits", classes=10, channels=1, height=8, width=8)
STROKES = ImageHead(name="strokes", classes=3, channels=1, height=16, width=12)

SETTLED = ConvSpace(
    heads=(DIGITS,),
    batch_size=3,
    stages=(1, 1),
    depth=(1, 1),
    widths=(16,),
    kernel_sizes=(3,),
    expansions=(2,),
    depthwise=(False,),
    groups=(1,),
    squeeze_excite=(False,),
    downsamples=("avg",),
    dropouts=(0.0,),
)
OPEN = ConvSpace(heads=(DIGITS,), batch_size=3, widths=(8, 16, 24), depth=(1, 2), groups=(1, 2, 4, 8, 16))
ALONE = replace(OPEN, stages=(1, 2), depth=(1, 1), widths=(8, 16), expansions=(1, 2))
SHARED = replace(OPEN, heads=(DIGITS, STROKES), stages=(2, 3), depth=(1, 2))

STAGE = ConvStage(
    depth=1, width=16, kernel_size=3, expansion=2, groups=4, squeeze_excite=True, downsample=None
)
SPEC = ConvSpec(stages=(STAGE, replace(STAGE, downsample="max")), dropout=0.1)
BAD_SIZES = (-1, 0, True, 1e300, 2**63, "12", None, 3.0)


def images(space, *, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = space.samples().items()
    return {name: torch.randn((batch, *sample.shape), generator=generator) for name, sample in samples}


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
def test_every_head_has_a_row_of_logits_for_each_image(seed):
    logits = SHARED.build(draw(SHARED, seed))(images(SHARED))
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "digits": (2, 10),
        "strokes": (2, 3),
    }


def test_a_model_may_be_asked_for_some_of_its_heads():
    model, inputs = SHARED.build(draw(SHARED, 0)).eval(), images(SHARED)
    torch.testing.assert_close(model({"strokes": inputs["strokes"]})["strokes"], model(inputs)["strokes"])


@pytest.mark.parametrize("name", ["keys", "pop", "type"])
def test_a_task_may_be_called_as_a_method_of_the_dict_that_holds_its_readout(name):
    space = replace(OPEN, heads=(replace(DIGITS, name=name),))
    assert set(space.build(draw(space, 0))(images(space))) == {name}


@pytest.mark.parametrize("seed", range(8))
def test_an_image_is_read_alike_alone_and_in_a_batch_while_training(seed):
    model = OPEN.build(replace(draw(OPEN, seed), dropout=0.0)).train()
    batch = images(OPEN, batch=4)["digits"]
    torch.testing.assert_close(
        model({"digits": batch[:1]})["digits"], model({"digits": batch})["digits"][:1], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("height", "width", "most"), [(1, 1, 1), (1, 64, 1), (2, 3, 2), (7, 9, 3), (8, 8, 4), (64, 64, 7)]
)
def test_stages_are_offered_until_the_smallest_image_is_a_pixel_high_or_wide(height, width, most):
    small = ImageHead(name="small", classes=2, channels=1, height=height, width=width)
    large = replace(small, name="large", height=100, width=100)
    space = replace(SETTLED, heads=(large, small), stages=(1, 100))
    counts = {len(draw(space, seed).stages) for seed in range(100)}
    assert (min(counts), max(counts)) == (1, most)
    deepest = max((draw(space, seed) for seed in range(100)), key=lambda spec: len(spec.stages))
    inputs = {"small": torch.randn(1, 1, height, width)}
    assert space.build(deepest).train()(inputs)["small"].isfinite().all()


def test_a_spec_with_more_stages_than_the_image_has_halves_is_neither_priced_nor_built():
    deep = ConvSpec(stages=(STAGE, *(replace(STAGE, downsample="avg") for _ in range(4))))
    for refuse in (OPEN.cost, OPEN.build):
        with pytest.raises(ValueError, match=r"^stages: 5, expected at most 4"):
            refuse(deep)


def test_what_is_settled_is_not_asked():
    trial = RandomTrial(random.Random(0))
    spec = SETTLED.suggest(trial)
    assert trial.params == {}
    assert spec.stages == (replace(STAGE, groups=1, squeeze_excite=False),)


def test_a_stage_is_asked_for_only_where_it_exists_and_the_first_is_never_downsampled():
    names = {"depth", "width", "kernel_size", "expansion", "depthwise", "squeeze_excite", "downsample"}
    for seed in range(100):
        trial = RandomTrial(random.Random(seed))
        spec = OPEN.suggest(trial)
        expected = {f"{name}_{index}" for index in range(len(spec.stages)) for name in names}
        asked = {name for name in trial.params if not name.startswith("groups_")}
        assert asked == expected - {"downsample_0"} | {"stages", "dropout"}


def test_groups_are_asked_only_of_what_is_not_depthwise_and_carry_what_they_may_be():
    seen = set()
    for seed in range(200):
        trial = RandomTrial(random.Random(seed))
        for index, stage in enumerate(OPEN.suggest(trial).stages):
            asked = [name for name in trial.params if name.startswith(f"groups_{index}[")]
            assert bool(asked) != trial.params[f"depthwise_{index}"]
            assert asked or stage.groups == stage.hidden
            seen.update(name.split("[")[1] for name in asked)
    assert {"1,2,4]", "1,2,4,8]", "1,2,4,8,16]"} <= seen


def test_a_spec_is_written_down_by_the_part_of_a_name_before_the_bracket():
    space = replace(SETTLED, groups=(1, 2, 4))
    spec, params = spec_from(space, {"groups_0": 4})
    assert spec.stages[0].groups == 4
    assert params == {"groups_0[1,2,4]": 4}


@pytest.mark.parametrize("seed", range(12))
def test_a_training_step_costs_what_forward_and_backward_compute(seed):
    spec = draw(SHARED, seed)
    flops, _ = forward_and_backward(SHARED, spec, GROUPED)
    assert SHARED.cost(spec).train_step_flops == flops


@pytest.mark.parametrize("seed", range(6))
def test_a_training_step_without_groups_costs_what_the_counter_sees_by_its_own_formulas(seed):
    space = replace(SHARED, depthwise=(False,), groups=(1,))
    spec = draw(space, seed)
    flops, _ = forward_and_backward(space, spec)
    assert space.cost(spec).train_step_flops == flops


@pytest.mark.parametrize("seed", range(12))
def test_the_memory_holds_weights_gradients_moments_and_what_the_backward_needs(seed):
    spec = draw(SHARED, seed)
    _, kept = forward_and_backward(SHARED, spec)
    cost = SHARED.cost(spec)
    assert 16 * cost.params + kept <= cost.memory_bytes <= 16 * cost.params + 1.02 * kept


def test_a_searched_batch_size_is_priced():
    spec = draw(SHARED, 0)
    once, thrice = (replace(SHARED, batch_size=size).cost(spec) for size in (1, 3))
    assert thrice.train_step_flops == 3 * once.train_step_flops
    assert thrice.memory_bytes - 16 * thrice.params == 3 * (once.memory_bytes - 16 * once.params)


@pytest.mark.parametrize("downsample", ["conv", "max", "avg"])
def test_a_stage_halves_the_image_and_leaves_out_an_odd_row(downsample):
    space = replace(SETTLED, heads=(replace(DIGITS, height=7, width=9),))
    model = space.build(ConvSpec(stages=(STAGE, replace(STAGE, width=24, downsample=downsample))))
    shapes = []
    model.backbone[-1].register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape)))
    model(images(space))
    assert shapes == [(2, 24, 3, 4)]


def test_pooling_takes_the_greatest_or_the_mean():
    stages = {name: (STAGE, replace(STAGE, downsample=name)) for name in ("max", "avg")}
    models = {name: OPEN.build(ConvSpec(stages=one)).eval() for name, one in stages.items()}
    models["avg"].load_state_dict(models["max"].state_dict())
    logits = [model(images(OPEN))["digits"] for model in models.values()]
    assert (logits[0] - logits[1]).abs().amax() > 1e-3


def test_squeeze_excite_weighs_whole_channels_by_what_is_seen_elsewhere():
    block = OPEN.build(SPEC).backbone[1]
    excite = next(module for module in block.layers if isinstance(module, SqueezeExcite))
    x = torch.rand(1, 32, 4, 4)
    elsewhere = x.clone()
    elsewhere[:, :, 3, 3] += 5
    ratio = excite(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert (excite(elsewhere)[:, :, 0, 0] - excite(x)[:, :, 0, 0]).abs().amax() > 1e-6


def test_a_block_adds_its_input_exactly():
    block, x = OPEN.build(SPEC).backbone[1], torch.randn(2, 16, 8, 8)
    torch.nn.init.zeros_(block.layers[-1].weight)
    assert torch.equal(block(x), x)


def test_dropout_is_of_the_training_alone():
    torch.manual_seed(0)
    model, inputs = OPEN.build(replace(SPEC, dropout=0.5)), images(OPEN)
    assert not torch.equal(model.train()(inputs)["digits"], model(inputs)["digits"])
    assert torch.equal(model.eval()(inputs)["digits"], model(inputs)["digits"])


def test_a_model_filled_after_it_was_made_without_memory_works_like_one_made_at_once():
    with torch.device("meta"):
        late = OPEN.build(SPEC)
    late.to_empty(device="cpu")
    torch.manual_seed(0)
    late.init_weights()
    torch.manual_seed(0)
    at_once = OPEN.build(SPEC)
    at_once.init_weights()
    assert late.eval()(images(OPEN))["digits"].isfinite().all()
    late.load_state_dict(at_once.state_dict())
    torch.testing.assert_close(
        late.eval()(images(OPEN))["digits"], at_once.eval()(images(OPEN))["digits"], rtol=0, atol=0
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_few_steps_tell_horizontal_from_vertical_stripes(seed):
    torch.manual_seed(seed)
    vertical = torch.tensor([1.0, -1.0]).repeat(4).expand(8, 8)
    targets = torch.arange(32) % 2
    x = torch.stack([vertical if target else vertical.t() for target in targets])[:, None]
    x = x + 0.3 * torch.randn(x.shape)
    space = replace(OPEN, heads=(replace(DIGITS, classes=2),), dropouts=(0.0,))
    model = space.build(draw(space, seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = cross_entropy(model({"digits": x})["digits"], targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_defaults_are_priced_as_they_are_counted_up_to_64_pixels():
    for side in (8, 28, 64):
        space = ConvSpace(
            heads=(ImageHead(name="x", classes=5, channels=3, height=side, width=side),), batch_size=2
        )
        spec = draw(space, side)
        measured = measure_space(space, spec)
        cost = space.cost(spec)
        assert (cost.params, cost.forward_flops) == (measured.params, measured.forward_flops)


@pytest.mark.parametrize("bad", BAD_SIZES)
@pytest.mark.parametrize("field", ["depth", "width", "kernel_size", "expansion", "groups"])
def test_a_bad_size_of_a_stage_is_refused_by_its_name(field, bad):
    with pytest.raises(ValueError, match=rf"^{field}: .*expected an integer"):
        replace(STAGE, **{field: bad})


@pytest.mark.parametrize("bad", BAD_SIZES)
@pytest.mark.parametrize("field", ["classes", "channels", "height", "width"])
def test_a_bad_size_of_a_head_is_refused_by_its_name(field, bad):
    with pytest.raises(ValueError, match=rf"^{field}: .*expected an integer"):
        replace(DIGITS, **{field: bad})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"width": 12}, "width"),
        ({"kernel_size": 4}, "kernel_size"),
        ({"groups": 5}, "groups"),
        ({"squeeze_excite": 1}, "squeeze_excite"),
        ({"downsample": "stride"}, "downsample"),
    ],
)
def test_a_stage_that_cannot_be_built_is_refused(change, name):
    with pytest.raises(ValueError, match=rf"^{name}: .*expected"):
        replace(STAGE, **change)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"stages": ()}, "stages"),
        ({"stages": [STAGE]}, "stages"),
        ({"stages": (SPEC,)}, "stages"),
        ({"stages": (STAGE, STAGE)}, "stages"),
        ({"stages": (replace(STAGE, downsample="avg"),)}, "stages"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": 0}, "dropout"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(change, name):
    with pytest.raises(ValueError, match=rf"^{name}: .*expected"):
        replace(SPEC, **change)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"heads": ()}, "heads"),
        ({"heads": [DIGITS]}, "heads"),
        ({"heads": (DIGITS, DIGITS)}, "heads"),
        ({"heads": (DIGITS, replace(STROKES, channels=3))}, "heads"),
        ({"batch_size": 0}, "batch_size"),
        ({"stages": (5, 6)}, "stages"),
        ({"stages": (2, 1)}, "stages"),
        ({"depth": 2}, "depth"),
        ({"widths": ()}, "widths"),
        ({"widths": (16, 20)}, "widths"),
        ({"kernel_sizes": (3, 4)}, "kernel_sizes"),
        ({"expansions": (0,)}, "expansions"),
        ({"depthwise": (1,)}, "depthwise"),
        ({"groups": (2, 4)}, "groups"),
        ({"squeeze_excite": ()}, "squeeze_excite"),
        ({"downsamples": ("none",)}, "downsamples"),
        ({"dropouts": (0.1, 0.1)}, "dropouts"),
    ],
)
def test_a_space_that_could_propose_what_cannot_be_built_is_refused(change, name):
    with pytest.raises(ValueError, match=rf"^{name}: .*expected"):
        replace(OPEN, **change)


@pytest.mark.parametrize("name", ["", "a.b", "1st", None])
def test_the_name_of_a_head_is_an_identifier(name):
    with pytest.raises(ValueError, match=r"^name: "):
        replace(DIGITS, name=name)
