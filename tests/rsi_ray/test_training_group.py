"""How a batch and a hold-out are shared out, by arithmetic; what is exchanged is tested in test_crew."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rsi_ray.spreading import _blocks
from rsi_ray.tasks.task import Batch
from rsi_ray.training_group import ALONE, TrainingGroup


def groups(workers):
    return [TrainingGroup(rank=rank, workers=workers) for rank in range(workers)]


@pytest.mark.parametrize(("rows", "workers"), [(8, 2), (9, 2), (7, 3), (3, 3)])
def test_every_sample_of_a_batch_is_in_one_share(rows, workers):
    batch = Batch(inputs=np.arange(rows), targets=np.arange(rows) + 100)
    shares = [group.share({"x": batch}, rows)["x"] for group in groups(workers)]
    assert np.concatenate([share.inputs for share in shares]).tolist() == list(range(rows))
    assert all((share.targets == share.inputs + 100).all() for share in shares)
    sizes = [len(share.inputs) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rows", [8, 9])
def test_the_mean_of_the_shares_losses_is_the_loss_of_the_batch(rows):
    outputs, targets = torch.randn(rows, 3), torch.randint(0, 3, (rows,))
    batch = {"x": Batch(inputs=outputs.numpy(), targets=targets.numpy())}
    losses = []
    for group in groups(2):
        share = group.share(batch, rows)["x"]
        loss = F.cross_entropy(torch.from_numpy(share.inputs), torch.from_numpy(share.targets))
        losses.append(group.weighed(loss, rows))
    torch.testing.assert_close(sum(losses) / 2, F.cross_entropy(outputs, targets))


@pytest.mark.parametrize(("rows", "workers"), [(8, 2), (33, 2), (5, 4), (2, 3)])
def test_every_sample_of_a_hold_out_is_in_equal_shares(rows, workers):
    shares = [range(rows)[group.equal_share(rows)] for group in groups(workers)]
    assert {len(share) for share in shares} == {-(-rows // workers)}
    assert set().union(*shares) == set(range(rows))


def test_one_process_alone_shares_nothing_and_changes_nothing():
    model, loss = nn.Linear(1, 1), torch.ones(())
    batch = {"x": Batch(inputs=np.arange(3), targets=np.arange(3))}
    assert ALONE.spread(model, torch.device("cpu")) is model
    assert ALONE.share(batch, 3) is batch
    assert ALONE.weighed(loss, 3) is ALONE.mean(loss) is ALONE.gathered(loss, 3) is loss
    assert ALONE.part(loss, loss) is loss


def test_the_blocks_of_a_list_are_gathered_one_by_one_but_for_what_they_share():
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(2, 2), nn.ModuleList([nn.Linear(1, 1)]), nn.ReLU()])
    model.tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model.tied[1].weight = model.tied[0].weight
    assert _blocks(model) == [model.blocks[0], model.blocks[1]]
