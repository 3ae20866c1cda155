import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.adversarial_modules import ADVERSARIES, Calls
from search_spaces import GPT2_SMALL, Sample, gpt2_space
from search_spaces.measure import Unmeasurable, measure, measure_space

# Lazy modules announce themselves as a new feature.
pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")


@pytest.mark.parametrize("name", ADVERSARIES)
def test_no_module_is_measured_under_its_truth(name):
    adversary = ADVERSARIES[name]
    measured = adversary.measured()
    if adversary.flops is None:
        assert measured is None
    else:
        # The hand-worked truth is met exactly: a referee that says twice as much refuses honest modules.
        assert (measured.params, measured.forward_flops) == (adversary.params, adversary.flops)


def test_gpt2_small_is_measured_as_torch_counts_it():
    space = gpt2_space()
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        space.build(GPT2_SMALL)({"lm": torch.zeros(1, 1024, dtype=torch.long)})
    assert measure_space(space, GPT2_SMALL).forward_flops == counter.get_total_flops()


def test_a_lazy_module_that_the_forward_never_calls_is_refused():
    def build():
        module = nn.Sequential(nn.Linear(4, 4))
        module.unused = nn.LazyLinear(3)
        module.forward = module[0].forward
        return module

    with pytest.raises(Unmeasurable, match="lazy"):
        measure(build, lambda: (torch.randn(2, 4),))


def test_a_module_with_data_is_refused():
    data = torch.ones(4, 4, device="cpu")
    with pytest.raises(Unmeasurable, match="expected the meta device"):
        measure(lambda: Calls(lambda: data @ data), tuple)


def test_a_refusal_names_the_operator():
    with pytest.raises(Unmeasurable, match=r"linalg_inv_ex.*neither counted nor known to be free"):
        measure(lambda: Calls(torch.linalg.inv), lambda: (torch.randn(4, 4),))


def test_measuring_allocates_nothing_even_where_gradients_are_off():
    with torch.no_grad():
        measured = measure(lambda: nn.Linear(2**20, 2**20, bias=False), lambda: (torch.randn(1, 2**20),))
    assert (measured.params, measured.forward_flops) == (2**40, 2**41)


def test_elementwise_work_of_the_size_of_its_operands_is_free():
    norms = nn.Sequential(nn.LayerNorm(8), nn.RMSNorm(8), nn.GELU(), nn.Softmax(-1), nn.Dropout())
    assert measure(lambda: norms.to("meta"), lambda: (torch.randn(4, 8),)).forward_flops == 0


def test_a_space_is_measured_on_one_sample_of_every_head():
    class Doubling:
        def samples(self):
            return {"x": Sample(shape=(4,), dtype="float32")}

        def build(self, spec):
            return Calls(lambda inputs: inputs["x"] @ inputs["x"].t())

    assert measure_space(Doubling(), None).forward_flops == 8
