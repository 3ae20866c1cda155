"""The names that the guide's test uses, in this project's system."""

from __future__ import annotations

import tempfile
from typing import Any

from rsi_ray import RecursiveSelfImprovement
from rsi_ray.tasks import built_in_task
from search_spaces import TransformerSpace, TransformerSpec

# as it stands in the guide
safety_config: dict[str, Any] = {
    "max_generations": 10,
    "min_improvement": 0.01,
    "require_approval": True,
    "bounds": {
        "max_params": 10e9,
        "max_flops": 1e15,
        "max_memory": 100e9,
        "max_performance": {"reasoning": 0.95, "code_generation": 0.90, "strategic_planning": 0.85},
    },
}
safety_bounds = safety_config["bounds"]

my_model = TransformerSpace(heads=built_in_task().heads, batch_size=32, depth=(1, 4), widths=(32, 64)).build(
    TransformerSpec(
        depth=1,
        width=32,
        heads=2,
        kv_heads=2,
        ffn_width=64,
        ffn_kind="gelu",
        norm="layernorm",
        position="learned",
        tied=False,
    )
)
rsi_system = RecursiveSelfImprovement(
    base_model=my_model,
    safety_config=safety_config,
    storage=tempfile.mkdtemp(),
    alerts={"seconds": 0},
)
search_engine = rsi_system.search_engine
modification_history: list[Any] = rsi_system.modification_engine.modification_history


def create_huge_architecture(params: float) -> TransformerSpec:
    """An architecture of at least so many parameters."""
    width = 16384
    layer = 12 * width**2
    return TransformerSpec(
        depth=int(params / layer) + 1,
        width=width,
        heads=128,
        kv_heads=128,
        ffn_width=4 * width,
        ffn_kind="gelu",
        norm="layernorm",
        position="learned",
        tied=False,
    )
