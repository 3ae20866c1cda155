"""What `safety.govern` looks at a trial's GPUs by is torch's; its numbers are set by hand, without a GPU."""

import sys

import torch

from rsi_ray.cuda_memory import CudaMemory
from safety.device_memory import BUILT_IN, DeviceMemories


def test_the_built_in_one_counts_the_tensors_of_torch(monkeypatch):
    taken = [7, 7]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(taken))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: taken[device])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    assert "torch" in sys.modules
    memories = DeviceMemories(BUILT_IN)
    memories.begin()
    taken[:] = [17, 27]
    assert memories.grown_bytes() == 30
    assert [type(one) for one in memories._memories] == [CudaMemory]
