"""What a candidate asks of Ray, by arithmetic."""

import pytest

from rsi_ray.placement import CONTEXT_BYTES, SHARES, Placement, Resources, TooLarge, needed_bytes, share_of
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


def test_auto_asks_for_a_share_and_for_a_whole_gpu_where_nobody_knows_how_large_one_is():
    assert auto(10**9) == Placement(cpus=2, gpus=1 / 16)
    assert auto(10**12, gpu_memory=0) == Placement(cpus=2, gpus=1.0)


def test_a_placement_in_rays_names_has_no_gpu_where_none_is_asked_for():
    assert Placement(cpus=2, gpus=0.25).bundle == {"CPU": 2, "GPU": 0.25}
    assert Placement(cpus=2, gpus=0.0).bundle == {"CPU": 2}
