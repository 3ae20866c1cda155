from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces import Sample
from search_spaces.footprint import footprint
from search_spaces.measure import Unmeasurable
from search_spaces.per_sample import training_cost

LENGTH = 6


class Calls(nn.Module):
    """Calls a function of the sample; what the function needs trained is given as parts."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(parts)

    def forward(self, inputs):
        return {"x": self.function(inputs["x"])}


@dataclass(frozen=True)
class Built:
    """A space of whatever its spec, a function, builds."""

    shape: tuple = (LENGTH, 8)
    dtype: str = "float32"

    def suggest(self, trial):
        raise LookupError("nothing to choose")

    def samples(self):
        return {"x": Sample(shape=self.shape, dtype=self.dtype)}

    def build(self, spec):
        return spec()


def of(build, **space):
    return footprint(Built(**space), build)


def heads(x):
    return x.view(1, LENGTH, 2, 4).transpose(1, 2)


# Query times key, and weights times value.
ATTENTION = 2 * (2 * LENGTH * LENGTH * 8)


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"dropout_p": 0.5}, {"scale": 0.1}, {"attn_mask": "mask"}]
)
def test_attention_is_counted_whole(options):
    def attend(x):
        given = {n: torch.zeros(LENGTH, LENGTH) if v == "mask" else v for n, v in options.items()}
        return F.scaled_dot_product_attention(heads(x), heads(x), heads(x), **given)

    assert of(lambda: Calls(attend)).forward_flops == ATTENTION


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_is_counted_in_every_mode(is_training, need_weights):
    def build():
        attention = nn.MultiheadAttention(8, 2, batch_first=True)
        return Calls(lambda x: attention(x, x, x, need_weights=need_weights)[0], attention).train(is_training)

    projections = 4 * 2 * LENGTH * 8 * 8
    assert of(build).forward_flops == projections + ATTENTION
    assert of(build).params == 4 * 8 * 8 + 4 * 8


@pytest.mark.parametrize("is_training", [True, False])
def test_an_encoder_layer_is_counted_in_both_modes(is_training):
    def build():
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        return Calls(layer, layer).train(is_training)

    linears = 2 * LENGTH * (4 * 8 * 8 + 2 * 8 * 16)
    assert of(build).forward_flops == linears + ATTENTION


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("einsum", lambda x: torch.einsum("bik,bjk->bij", x, x)),
        ("operator", lambda x: x @ x.transpose(1, 2)),
        ("bmm", lambda x: torch.bmm(x, x.transpose(1, 2))),
        ("matmul", lambda x: torch.matmul(x, x.transpose(1, 2))),
        ("by hand", lambda x: (x[:, :, None] * x[:, None]).sum(-1)),
    ],
)
def test_a_product_is_counted_in_whatever_words(name, product):
    assert of(lambda: Calls(product)).forward_flops == 2 * LENGTH * LENGTH * 8


@pytest.mark.parametrize(
    ("layer", "shape", "flops"),
    [
        (lambda: nn.Conv1d(4, 6, 3), (4, 10), 2 * 8 * 6 * 4 * 3),
        (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 8, 8), 2 * 64 * 6 * 4 * 9),
        (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 8, 8), 2 * 16 * 6 * 4 * 9),
        (lambda: nn.Conv2d(4, 8, 5, padding=2, groups=4), (4, 8, 8), 2 * 64 * 8 * 25),
        (lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2), (4, 8, 8), 2 * 64 * 6 * 4 * 9),
        (lambda: nn.Conv3d(2, 3, 3, padding=1), (2, 4, 4, 4), 2 * 64 * 3 * 2 * 27),
        (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 8, 8), 2 * 64 * 6 * 4 * 4),
        (lambda: nn.Linear(8, 3), (LENGTH, 8), 2 * LENGTH * 8 * 3),
    ],
)
def test_a_layer_is_counted_by_its_closed_form(layer, shape, flops):
    def build():
        one = layer()
        return Calls(one, one)

    assert of(build, shape=shape).forward_flops == flops


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}])
@pytest.mark.parametrize("is_batch_first", [True, False])
def test_a_recurrent_layer_is_counted_by_its_gates(kind, gates, options, is_batch_first):
    def build():
        layer = kind(8, 8, batch_first=is_batch_first, **options)
        return Calls(lambda x: layer(x if is_batch_first else x.transpose(0, 1))[0], layer)

    sizes = {"bidirectional": (8 + 8) * 2, "num_layers": (8 + 8) * 2}
    wide = next((sizes[name] for name in options), 8 + 8)
    assert of(build).forward_flops == 2 * LENGTH * gates * 8 * wide


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_norm_in_training_is_measured_though_it_takes_no_single_sample(count):
    def build():
        layers = [nn.Linear(8, 8, bias=False) for _ in range(count)]
        norms = [nn.BatchNorm1d(8) for _ in range(count)]
        return Calls(
            nn.Sequential(*(part for pair in zip(layers, norms, strict=True) for part in pair)),
            *layers,
            *norms,
        )

    found = of(build, shape=(8,))
    assert found.forward_flops == count * 2 * 8 * 8
    assert found.params == count * (64 + 16)
    without = of(lambda: Calls(nn.Sequential(*(norm := [nn.Linear(8, 8, bias=False)])), *norm), shape=(8,))
    assert found.kept_bytes < 8 * count * without.kept_bytes


def test_what_cannot_be_counted_is_refused_by_the_name_of_space_and_operator():
    with pytest.raises(
        Unmeasurable, match=r"^Built: .*can't be priced: aten\.linalg_inv_ex.*neither counted"
    ):
        of(lambda: Calls(torch.linalg.inv), shape=(4, 4))


def test_memory_is_the_parameters_the_buffers_and_what_the_batch_keeps():
    def build():
        layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        layers.register_buffer("table", torch.zeros(100))
        return Calls(layers, layers)

    params = 8 * 32 + 32 + 32 * 2 + 2
    kept = 4 * LENGTH * (8 + 32 + 3 * 2)
    for batch_size in (1, 5):
        assert training_cost(of(build), batch_size).memory_bytes == 16 * params + 400 + batch_size * kept


def test_a_buffer_that_the_backward_reads_is_there_once_whatever_the_batch():
    def build():
        layer = nn.Linear(8, 8)
        layer.register_buffer("mask", torch.ones(LENGTH, 8))
        return Calls(lambda x: layer(x) * layer.mask, layer)

    one = of(build)
    assert (one.kept_bytes, one.buffer_bytes) == (4 * LENGTH * (8 + 3 * 8), 4 * LENGTH * 8)


def test_a_storage_that_is_saved_twice_is_kept_once():
    def build():
        readers = [nn.Linear(8, 2) for _ in range(3)]
        return Calls(lambda x: sum(reader(x) for reader in readers), *readers)

    assert of(build).kept_bytes == 4 * LENGTH * (8 + 3 * 2)


LONG = 512


def self_attention(attend):
    def build():
        qkv = nn.Linear(8, 24)
        return Calls(lambda x: attend(*(part[:, None] for part in qkv(x).chunk(3, dim=-1))), qkv)

    return of(build, shape=(LONG, 8)).kept_bytes


def test_fused_attention_keeps_its_operands_and_no_scores():
    kept = self_attention(F.scaled_dot_product_attention)
    assert kept == 4 * LONG * (8 + 24 + 8 + 3 * 8)


@pytest.mark.parametrize(
    "attend",
    [
        lambda q, k, v: (q @ k.transpose(-1, -2)).softmax(-1) @ v,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.1),
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, 0.1),
    ],
)
def test_attention_that_is_written_out_or_drops_keeps_its_scores(attend):
    assert self_attention(attend) > 4 * LONG**2
