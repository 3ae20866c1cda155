"""What a candidate asks of Ray, by arithmetic."""

import pytest

from rsi_ray.placement import (
    CONTEXT_BYTES,
    HEAD_BYTES,
    SHARES,
    Placement,
    Resources,
    TooLarge,
    needed_bytes,
    share_of,
)
from safety.resources import ALLOWANCE_BYTES

GPU = 80 * 10**9
BESIDE = CONTEXT_BYTES + ALLOWANCE_BYTES


def auto(memory_bytes, gpu_memory=GPU):
    return Resources(cpus=2, gpus="auto", gpu_memory=gpu_memory).placement(memory_bytes)


@pytest.mark.parametrize("share", SHARES)
def test_a_candidate_that_just_fits_into_a_share_gets_it_and_one_byte_more_the_next(share):
    most = int(share * GPU) - BESIDE
    assert share_of(most, GPU) == share
    if share < 1:
        assert share_of(most + 1, GPU) == SHARES[SHARES.index(share) + 1]


def test_what_a_process_takes_beside_its_trial_is_counted():
    assert needed_bytes(0) == BESIDE
    assert share_of(0, 2 * BESIDE) == 0.5


def test_a_candidate_over_a_whole_gpu_is_refused_with_both_numbers():
    with pytest.raises(TooLarge, match=r"needs 80,000,000,001 bytes of a GPU .*, the smallest one has 80,0"):
        share_of(GPU - BESIDE + 1, GPU)


def test_shares_keep_their_value_in_rays_four_digits_and_fill_a_gpu():
    assert [round(share, 4) for share in SHARES] == list(SHARES)
    assert all(share * 16 == int(share * 16) for share in SHARES)


def test_the_shares_of_any_mix_that_is_placed_on_a_gpu_have_room_for_their_bytes():
    for first in range(0, GPU, GPU // 40):
        for second in range(0, GPU - first, GPU // 40):
            try:
                shares = share_of(first, GPU) + share_of(second, GPU)
            except TooLarge:
                continue
            if shares <= 1:
                assert needed_bytes(first) + needed_bytes(second) <= GPU


def test_a_number_of_gpus_stays_what_it_is():
    assert Resources(gpus=0.5, gpu_memory=10).placement(10**12) == Placement(cpus=1, gpus=0.5)


def test_a_process_that_is_given_several_gpus_has_whole_ones():
    assert Resources(gpus=2).placement(1) == Placement(cpus=1, gpus=2)
    with pytest.raises(ValueError, match=r"gpus: 1\.5, expected a fraction of one, or whole ones"):
        Resources(gpus=1.5)


def test_auto_asks_for_a_share_and_for_a_whole_gpu_where_nobody_knows_how_large_one_is():
    assert auto(10**9) == Placement(cpus=2, gpus=1 / 16)
    assert auto(10**12, gpu_memory=0) == Placement(cpus=2, gpus=1.0)


def test_a_placement_in_rays_names_has_no_gpu_where_none_is_asked_for():
    assert Placement(cpus=2, gpus=0.25).bundle == {"CPU": 2, "GPU": 0.25}
    assert Placement(cpus=2, gpus=0.0).bundle == {"CPU": 2}


# a candidate whose state alone takes 160 GB, and 16 GB are kept of a batch of 8
PARAMS, MEMORY = 10**10, 176 * 10**9


def workers(count, strategy="auto", *, gpus=1, gpu_memory=GPU, memory=MEMORY, params=PARAMS, rows=8):
    resources = Resources(gpus=gpus, gpu_memory=gpu_memory, workers=count, strategy=strategy)
    return resources.placement(memory, params=params, rows=rows)


def test_one_worker_holds_all_of_a_candidate_whatever_else_is_said_of_it():
    assert Placement(cpus=1, gpus=1).worker_bytes(MEMORY, params=PARAMS, rows=8) == MEMORY


def test_replicas_have_the_whole_state_each_and_their_share_of_what_a_batch_keeps():
    ddp = Placement(cpus=1, gpus=1, workers=4)
    assert ddp.worker_bytes(MEMORY, params=PARAMS, rows=8) == (160 + 4) * 10**9


def test_shards_have_their_share_of_the_state_and_room_for_what_is_gathered():
    fsdp = Placement(cpus=1, gpus=1, workers=4, sharded=True)
    assert fsdp.worker_bytes(MEMORY, params=PARAMS, rows=8) == (40 + 80 + 4) * 10**9


def test_the_largest_share_of_a_batch_counts_where_it_cannot_be_divided():
    ddp = Placement(cpus=1, gpus=1, workers=2)
    assert ddp.worker_bytes(16 + 90, params=1, rows=9) == 16 + 50


def test_auto_takes_one_worker_where_a_candidate_fits_and_the_share_that_it_needs():
    assert workers("auto", memory=10**9, params=10**6) == Placement(cpus=1, gpus=1)
    assert workers("auto", gpus="auto", memory=10**9, params=10**6) == Placement(cpus=1, gpus=1 / 16)


def test_auto_takes_the_fewest_replicas_that_fit_where_what_a_batch_keeps_is_too_large():
    found = workers("auto", memory=200 * 10**9, params=10**9)
    assert found == Placement(cpus=1, gpus=1, workers=4)  # 16 GB, and 46 GB of two samples; three have 85 GB
    assert workers("auto", "ddp", memory=200 * 10**9, params=10**9) == found


def test_auto_takes_shards_where_no_replica_fits():
    assert workers("auto", memory=6 * 16 * 10**9, params=6 * 10**9) == Placement(
        cpus=1, gpus=1, workers=4, sharded=True
    )


def test_a_number_of_workers_is_sharded_only_where_replicas_do_not_fit_or_it_is_asked_for():
    assert not workers(2, memory=10**9, params=10**6).sharded
    assert workers(2, "fsdp2", memory=10**9, params=10**6).sharded
    assert workers(4, memory=6 * 16 * 10**9, params=6 * 10**9).sharded
    assert not workers(2, gpus=0).sharded  # nobody knows what a CPU's memory has room for


@pytest.mark.parametrize(("gpus", "memory"), [(2, 70 * 10**9), (1 / 2, 35 * 10**9)])
def test_a_worker_holds_no_more_than_one_gpu_does_or_its_share(gpus, memory):
    assert workers("auto", gpus=gpus, memory=memory, params=10**6).workers == 1
    assert workers("auto", gpus=gpus, memory=2 * memory, params=10**6).workers > 1


def test_a_candidate_that_no_number_of_workers_can_hold_is_refused():
    with pytest.raises(TooLarge, match="too much of each of 8; the smallest one has 80,000,000,000"):
        workers("auto", memory=16 * 10**11, params=10**11)


def test_more_workers_than_samples_of_a_batch_are_refused():
    with pytest.raises(ValueError, match="workers: 9, expected at most the 8 samples of a batch"):
        workers(9)
    assert workers("auto", gpus=0) == Placement(cpus=1, gpus=0)


def test_only_several_workers_are_asked_for_beside_the_trials_own_process():
    assert Placement(cpus=2, gpus=1).head == {"CPU": 2, "GPU": 1}
    assert Placement(cpus=2, gpus=1, workers=2).head == {"memory": HEAD_BYTES}


@pytest.mark.parametrize(
    ("asked", "asks"),
    [
        ({"gpus": 1}, False),
        ({"gpus": "auto"}, True),
        ({"gpus": 1, "workers": "auto", "strategy": "ddp"}, True),
        ({"gpus": 0, "workers": "auto"}, False),
    ],
)
def test_the_size_of_a_gpu_is_asked_for_only_where_something_depends_on_it(asked, asks):
    assert Resources(**asked).asks_for_gpu_memory == asks
