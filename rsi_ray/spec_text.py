"""A configuration as people read it in a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsi_ray.hyperparameters import PREFIX

# of a spec, where it names something
MOST_CHARACTERS = 120
STEMS = {"learning_rate": "lr", "weight_decay": "wd"}


def spec_text(config: Mapping[str, Any]) -> str:
    """A configuration in one short line: words as they are, numbers behind the stem of their name."""
    words = []
    for name, value in config.items():
        bare = name.removeprefix(PREFIX)
        stem = STEMS.get(bare, bare.split("[", 1)[0].split("_", 1)[0])
        if value is None:
            words.append(f"no-{stem}")
        elif isinstance(value, bool):
            words.append(stem if value else f"no-{stem}")
        else:
            words.append(value if isinstance(value, str) else f"{stem}{value:.3g}")
    return " ".join(words)
