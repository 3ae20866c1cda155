"""The port to the GPUs' memory, with torch's own numbers set by hand: no GPU is needed."""

import subprocess
import sys

import pytest
import torch

from rsi_ray.cuda_memory import CudaMemory


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


def test_a_process_that_has_not_used_cuda_takes_nothing_and_is_not_made_to():
    program = (
        "import torch\nfrom rsi_ray.cuda_memory import CudaMemory\nmemory = CudaMemory()\nmemory.begin()\n"
        "assert memory.grown_bytes() == 0\nassert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
