"""Small trainables that are not ours; imported by drivers and workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from ray import tune

REPORTS = 9


class Climber(tune.Trainable):
    """Scores its slope times its steps; each step leaves a line in its configuration's folder."""

    def setup(self, config: dict[str, Any]) -> None:
        self.begin(config)

    def begin(self, config: dict[str, Any]) -> None:
        self.slope, self.width, self.steps = config["slope"], config.get("width", 1), 0
        self.folder = Path(config["folder"])

    def step(self) -> dict[str, Any]:
        self.steps += 1
        with (self.folder / "steps.txt").open("a") as file:
            print(self.trial_id, self.width, self.slope, self.steps, file=file)
        return {"score": self.slope * self.steps, "done": self.steps >= REPORTS}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.steps = checkpoint["steps"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.begin(new_config)
        return True


class Failing(Climber):
    """Raises once, or dies once where it is told to, at its second step."""

    def step(self) -> dict[str, Any]:
        mark = self.folder / f"{self.trial_id}.failed"
        if self.steps == 1 and not mark.exists():
            mark.touch()
            if self.config.get("dies"):
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("no such luck")
        return super().step()
