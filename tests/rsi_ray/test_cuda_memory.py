"""The port to the GPUs' memory, with torch's own numbers set by hand: no GPU is needed."""

import subprocess
import sys

import pytest
import torch

from rsi_ray.cuda_memory import CudaMemory, allocator_fraction, give_back, hold_to, told
from safety.resources import ALLOWANCE_BYTES


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs: (allocated now, the most since the last reset) of each."""
    taken = [[100, 900], [50, 50]]

    def reset(device):
        taken[device][1] = taken[device][0]

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(taken))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: taken[device][0])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: taken[device][1])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    return taken


def test_the_peak_since_the_beginning_counts_over_all_gpus(gpus):
    memory = CudaMemory()
    memory.begin()
    assert memory.grown_bytes() == 0
    gpus[0][1] = 1100  # a short peak, which is over by now
    gpus[1][:] = [70, 70]
    assert memory.grown_bytes() == 1020
    memory.begin()
    assert memory.grown_bytes() == 0


GPU = torch.device("cuda", 0)


@pytest.fixture
def allocator(gpus, monkeypatch):
    """What the allocator was told, in order; the GPU has 10^10 bytes."""
    done = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 10**10))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: gpus[0][0])
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("empty"))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: done.append((share, device))
    )
    return done


def test_the_allocator_may_take_what_is_reserved_and_what_any_process_may_beside_what_is_there():
    assert allocator_fraction(10**9, 0, 10**10) == (10**9 + ALLOWANCE_BYTES) / 10**10
    assert allocator_fraction(10**9, 5, 10**10) == (10**9 + ALLOWANCE_BYTES + 5) / 10**10
    assert allocator_fraction(10**12, 0, 10**10) == 1.0


def test_each_candidate_gets_a_limit_of_its_own_after_the_one_before_gave_its_memory_back(allocator):
    for reserved in (10**9, 2 * 10**9):
        hold_to(reserved, GPU)
    shares = [allocator_fraction(reserved, 100, 10**10) for reserved in (10**9, 2 * 10**9)]
    assert allocator == ["empty", (shares[0], GPU), "empty", (shares[1], GPU)]


def test_torch_itself_takes_the_limit_of_a_device_without_a_number(gpus, monkeypatch):
    # only what talks to the driver is set by hand: torch refuses some devices before that
    told = []
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: gpus[device.index][0])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 10**10))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_setMemoryFraction", lambda *given: told.append(given), raising=False)
    hold_to(10**9, torch.device("cuda"))
    hold_to(10**9, GPU)
    assert told == [(allocator_fraction(10**9, 50, 10**10), 1), (allocator_fraction(10**9, 100, 10**10), 0)]


def test_on_a_cpu_no_limit_is_set_and_nothing_is_given_back(allocator, monkeypatch):
    hold_to(10**9, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    give_back()
    assert allocator == []


def test_what_ran_out_is_one_line_with_the_reservation():
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 80 GiB\nof"
    )
    line = told(error, 10**9)
    assert "reserved 1,000,000,000 bytes" in line
    assert line.endswith("CUDA out of memory. Tried to allocate 20.00 MiB.")


def test_a_process_that_has_not_used_cuda_takes_nothing_and_is_not_made_to():
    program = (
        "import torch\nfrom rsi_ray.cuda_memory import CudaMemory\nmemory = CudaMemory()\nmemory.begin()\n"
        "assert memory.grown_bytes() == 0\nassert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
