import random
from dataclasses import replace

import pytest
import torch

from search_spaces import GPT2_SMALL, Head, RandomTrial, TransformerSpace, gpt2_space
from tests.contracts.space_contract import SpaceContract, draw
from tests.contracts.training_step import forward_and_backward

LM = Head(name="lm", classes=48, length=12, dense=True)
PARITY = Head(name="parity", classes=2, length=6, dense=False)
KEYS = Head(name="keys", classes=7, length=9, dense=True)

ALONE = TransformerSpace(
    heads=(LM,), batch_size=3, vocab=48, depth=(1, 2), widths=(16, 24, 32), head_sizes=(2, 4, 8)
)
SHARED = replace(ALONE, heads=(LM, PARITY), depth=(1, 1), positions=("learned", "rotary", "none"))
THREE = replace(ALONE, heads=(LM, PARITY, KEYS), positions=("learned", "rotary", "none"))
DROPPING = replace(THREE, dropouts=(0.1, 0.5))

BAD_SIZES = (-1, 0, True, 1e300, 2**63, "12", None, 3.0)


def tokens(space, *, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {head.name: (batch, head.length) for head in space.heads}
    return {name: torch.randint(space.vocab, shape, generator=generator) for name, shape in shapes.items()}


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


@pytest.mark.parametrize("seed", range(12))
def test_logits_have_a_row_for_every_position_of_a_dense_head_and_one_for_the_others(seed):
    logits = THREE.build(draw(THREE, seed))(tokens(THREE))
    shapes = {name: tuple(value.shape) for name, value in logits.items()}
    assert shapes == {"lm": (2, 12, 48), "parity": (2, 2), "keys": (2, 9, 7)}


@pytest.mark.parametrize("seed", range(12))
def test_a_later_token_changes_no_earlier_logits_and_does_change_its_own(seed):
    torch.manual_seed(seed)
    model = THREE.build(draw(THREE, seed))
    before = tokens(THREE)
    after = {name: ids.clone() for name, ids in before.items()}
    for ids in after.values():
        ids[:, 5] = (ids[:, 5] + 1) % THREE.vocab
    old, new = model(before), model(after)
    for name in ("lm", "keys"):
        torch.testing.assert_close(new[name][:, :5], old[name][:, :5], rtol=0, atol=1e-6)
        assert (new[name][:, 5] - old[name][:, 5]).abs().amax() > 1e-4
    assert (new["parity"] - old["parity"]).abs().amax() > 1e-6


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_the_order_of_earlier_tokens_matters_where_positions_are_known(position):
    torch.manual_seed(0)
    spec = replace(draw(ALONE, 3), depth=1, position=position)
    before = tokens(ALONE)["lm"]
    swapped = before.clone()
    swapped[:, [0, 1]] = before[:, [1, 0]]
    swapped[0, 0], swapped[0, 1], before[0, 0], before[0, 1] = 1, 2, 2, 1
    model = ALONE.build(spec)
    assert (model({"lm": swapped})["lm"][0, -1] - model({"lm": before})["lm"][0, -1]).abs().amax() > 1e-6


def test_a_model_may_be_asked_for_some_of_its_heads():
    model, inputs = THREE.build(draw(THREE, 0)), tokens(THREE)
    one = model({"parity": inputs["parity"]})
    assert set(one) == {"parity"}
    torch.testing.assert_close(one["parity"], model(inputs)["parity"])


def test_a_task_may_be_called_as_a_method_of_the_dict_that_holds_its_readout():
    space = replace(ALONE, heads=tuple(replace(KEYS, name=name) for name in ("keys", "pop", "type")))
    assert set(space.build(draw(space, 0))(tokens(space))) == {"keys", "pop", "type"}


def test_tied_heads_read_with_the_token_embedding_and_the_state_holds_it_once():
    state = THREE.build(replace(draw(THREE, 0), tied=True)).state_dict()
    assert "readouts.to_lm.weight" not in state
    assert {"embedding.weight", "readouts.to_keys.weight", "readouts.to_parity.weight"} <= set(state)


def test_a_model_filled_after_it_was_made_without_memory_works_like_one_made_at_once():
    spec = replace(draw(THREE, 0), position="rotary", norm="layernorm")
    with torch.device("meta"):
        late = THREE.build(spec)
    late.to_empty(device="cpu")
    torch.manual_seed(0)
    late.init_weights()
    at_once = THREE.build(spec)
    late.load_state_dict(at_once.state_dict())
    for name, logits in at_once(tokens(THREE)).items():
        torch.testing.assert_close(late(tokens(THREE))[name], logits)


def test_tied_is_asked_only_where_a_dense_head_predicts_the_vocabulary():
    trial = RandomTrial(random.Random(0))
    spec = replace(ALONE, heads=(PARITY, KEYS)).suggest(trial)
    assert not spec.tied
    assert "tied" not in trial.params


def test_dropout_is_asked_only_where_it_is_offered_a_choice_of():
    asked = RandomTrial(random.Random(0))
    assert DROPPING.suggest(asked).dropout == asked.params["dropout"]
    settled = RandomTrial(random.Random(0))
    assert replace(THREE, dropouts=(0.3,)).suggest(settled).dropout == 0.3
    assert "dropout" not in settled.params


def logits_and_gradients(spec, *, training=True):
    torch.manual_seed(0)
    model = THREE.build(spec).train(training)
    state = torch.get_rng_state()
    logits = model(tokens(THREE))
    sum(value.square().sum() for value in logits.values()).backward()
    is_drawn = not torch.equal(state, torch.get_rng_state())
    return logits, [parameter.grad for parameter in model.parameters()], is_drawn


def test_without_dropout_training_is_what_evaluation_is_bit_for_bit_and_draws_nothing():
    spec = draw(THREE, 1)
    assert spec.dropout == 0.0
    trained, gradients, is_drawn = logits_and_gradients(spec)
    evaluated, others, _ = logits_and_gradients(spec, training=False)
    assert not is_drawn
    assert all(torch.equal(trained[name], evaluated[name]) for name in trained)
    assert all(torch.equal(one, other) for one, other in zip(gradients, others, strict=True))


def test_dropout_changes_the_training_alone():
    spec = draw(THREE, 1)
    without, _, _ = logits_and_gradients(spec)
    trained, _, _ = logits_and_gradients(replace(spec, dropout=0.5))
    evaluated, _, _ = logits_and_gradients(replace(spec, dropout=0.5), training=False)
    for name, logits in without.items():
        assert torch.equal(evaluated[name], logits)
        assert not torch.equal(trained[name], logits)


def share_of_zeros(x):
    return (x == 0).float().mean()


def test_dropout_is_of_the_embeddings():
    model, seen = ALONE.build(replace(draw(ALONE, 1), dropout=0.5)), []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(tokens(ALONE))
    assert 0.4 < share_of_zeros(seen[0]) < 0.6


@pytest.mark.parametrize("silenced", ["attention", "ffn"])
def test_dropout_is_of_what_each_branch_adds(silenced):
    spec = replace(draw(ALONE, 1), position="learned", dropout=0.5)
    block = ALONE.build(spec).blocks[0]
    torch.nn.init.zeros_(block.get_submodule(silenced).proj.weight)
    x = torch.randn(8, 12, spec.width)
    assert 0.4 < share_of_zeros(block(x, None) - x) < 0.6


def test_specs_stay_within_the_space():
    for seed in range(300):
        spec = draw(THREE, seed)
        assert THREE.depth[0] <= spec.depth <= THREE.depth[1]
        assert spec.width in THREE.widths
        assert spec.head_size in THREE.head_sizes
        assert spec.heads // spec.kv_heads in THREE.kv_groups
        assert THREE.ffn_ratio[0] <= spec.ffn_width / spec.width <= THREE.ffn_ratio[1]


@pytest.mark.parametrize("seed", range(12))
def test_a_training_step_costs_what_the_counter_sees_of_forward_and_backward(seed):
    spec = draw(THREE, seed)
    flops, _ = forward_and_backward(THREE, spec)
    assert THREE.cost(spec).train_step_flops == flops


@pytest.mark.parametrize("space", [THREE, DROPPING], ids=["without dropout", "with dropout"])
@pytest.mark.parametrize("seed", range(12))
def test_the_memory_holds_weights_gradients_moments_and_what_the_backward_needs(space, seed):
    spec = draw(space, seed)
    _, kept = forward_and_backward(space, spec)
    cost = space.cost(spec)
    assert 16 * cost.params + kept <= cost.memory_bytes <= 16 * cost.params + 3 * kept


def test_gpt2_small_is_the_published_size_without_its_biases_in_linears():
    biases = GPT2_SMALL.depth * (3 * 768 + 768 + 3072 + 768)
    assert gpt2_space().cost(GPT2_SMALL).params == 124_439_808 - biases


@pytest.mark.parametrize("bad", BAD_SIZES)
@pytest.mark.parametrize("field", ["depth", "width", "heads", "kv_heads", "ffn_width"])
def test_a_bad_size_of_a_spec_is_refused_by_its_name(field, bad):
    with pytest.raises(ValueError, match=rf"^{field}: .*expected an integer"):
        replace(GPT2_SMALL, **{field: bad})


@pytest.mark.parametrize("bad", BAD_SIZES)
@pytest.mark.parametrize("field", ["classes", "length"])
def test_a_bad_size_of_a_head_is_refused_by_its_name(field, bad):
    with pytest.raises(ValueError, match=rf"^{field}: .*expected an integer"):
        replace(LM, **{field: bad})


@pytest.mark.parametrize("bad", BAD_SIZES)
@pytest.mark.parametrize(
    "field", ["batch_size", "vocab", "depth", "ffn_ratio", "widths", "head_sizes", "kv_groups"]
)
def test_a_bad_size_of_a_space_is_refused_by_its_name(field, bad):
    wrapped = {"depth": (1, bad), "ffn_ratio": (bad, 4), "widths": (32, bad), "head_sizes": (8, bad)}
    value = {**wrapped, "kv_groups": (1, bad)}.get(field, bad)
    with pytest.raises(ValueError, match=rf"^{field}: "):
        replace(ALONE, **{field: value})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"heads": ()}, "heads"),
        ({"heads": (LM, LM)}, "heads"),
        ({"heads": [LM]}, "heads"),
        ({"depth": (2, 1)}, "depth"),
        ({"widths": ()}, "widths"),
        ({"widths": (16, 16)}, "widths"),
        ({"widths": (31,)}, "widths"),
        ({"widths": [16]}, "widths"),
        ({"head_sizes": (1, 2)}, "head_sizes"),
        ({"kv_groups": (2,)}, "kv_groups"),
        ({"norms": ("batchnorm",)}, "norms"),
        ({"ffn_kinds": ()}, "ffn_kinds"),
        ({"positions": ("rotary", "rotary")}, "positions"),
        ({"tied": (1,)}, "tied"),
        ({"dropouts": ()}, "dropouts"),
        ({"dropouts": [0.1]}, "dropouts"),
        ({"dropouts": (0.1, 0.1)}, "dropouts"),
        ({"dropouts": (0.1, 1.0)}, "dropouts"),
        ({"dropouts": (-0.1,)}, "dropouts"),
        ({"dropouts": (float("nan"),)}, "dropouts"),
        ({"dropouts": (float("inf"),)}, "dropouts"),
        ({"dropouts": (False,)}, "dropouts"),
    ],
)
def test_a_space_that_could_propose_what_cannot_be_built_is_refused(change, name):
    with pytest.raises(ValueError, match=rf"^{name}: .*expected"):
        replace(ALONE, **change)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"heads": 7, "kv_heads": 7}, "heads"),
        ({"kv_heads": 5}, "kv_heads"),
        ({"width": 15, "heads": 3, "kv_heads": 1, "position": "rotary"}, "heads"),
        ({"ffn_kind": "relu"}, "ffn_kind"),
        ({"tied": 1}, "tied"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": float("nan")}, "dropout"),
        ({"dropout": "0.1"}, "dropout"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(change, name):
    with pytest.raises(ValueError, match=rf"^{name}: .*expected"):
        replace(GPT2_SMALL, **change)


def test_every_problem_has_a_line_of_its_own():
    with pytest.raises(ValueError, match="depth") as caught:
        replace(GPT2_SMALL, depth=0, norm="none", tied=None)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["depth", "norm", "tied"]


@pytest.mark.parametrize("name", ["", "a.b", "1st", None])
def test_the_name_of_a_head_is_an_identifier(name):
    with pytest.raises(ValueError, match=r"^name: "):
        replace(LM, name=name)
