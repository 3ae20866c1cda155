"""What is told where a cluster can't be joined."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from rsi_ray.connection import local_ray
from safety.errors import ClusterUnreachable

MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.10.4\nThis process:\n"
)


@pytest.mark.parametrize(
    "error", [RuntimeError(MISMATCH), AuthenticationError("no token"), ValueError("odd")]
)
def test_what_ray_objects_to_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception):
    def refuses(**options: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuses)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ClusterUnreachable) as told, local_ray():
        pass
    assert str(told.value).startswith("the Ray cluster auto can't be joined: ")
    assert "\n" not in str(told.value)
    assert all(word in str(told.value) for word in str(error).split()[:12])
