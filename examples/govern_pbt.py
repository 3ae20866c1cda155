"""A script with Ray Tune and population based training, put under limits by one call: `safety.govern`.

`python examples/govern_pbt.py` takes about half a minute on two cores.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from sklearn.datasets import load_digits
from torch import nn

import safety

LIMITS = {
    "bounds": {"max_params": 20_000, "max_flops": 1e6, "max_memory": 1e9},
    "sweep": {"train_flops": 1e12, "trials": 4},
}
EPOCHS = 12
SAMPLES = 1437


class Digits(tune.Trainable):
    """Trains a perceptron on handwritten digits, an epoch a step."""

    def setup(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        digits = load_digits()
        self.images = torch.tensor(digits.data, dtype=torch.float32) / 16
        self.labels = torch.tensor(digits.target)
        self.model = nn.Sequential(nn.Linear(64, config["width"]), nn.ReLU(), nn.Linear(config["width"], 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config["lr"], momentum=0.9)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        for batch in torch.randperm(SAMPLES).split(32):
            loss = nn.functional.cross_entropy(self.model(self.images[batch]), self.labels[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        with torch.no_grad():
            right = self.model(self.images[SAMPLES:]).argmax(1) == self.labels[SAMPLES:]
        return {"accuracy": right.float().mean().item()}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, Path(checkpoint_dir) / "state.pt")

    def load_checkpoint(self, checkpoint: str) -> None:
        state = torch.load(Path(checkpoint) / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.config["lr"]


def cost(config: dict[str, Any]) -> dict[str, Any]:
    """What a trial takes: 2 FLOPs per weight and sample forward, twice that backward."""
    weights = 64 * config["width"] + config["width"] * 10
    forward = 2 * weights
    return {
        "params": weights + config["width"] + 10,
        "forward_flops": forward,
        "train_flops": EPOCHS * (3 * forward * SAMPLES + forward * 360),
    }


def main() -> None:
    random.seed(0)
    ray.init(address="local", num_cpus=2, log_to_driver=False)
    tuner = tune.Tuner(
        Digits,
        # 400 is too wide: it never starts
        param_space={"width": tune.grid_search([32, 64, 128, 400]), "lr": tune.uniform(0.001, 0.1)},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            reuse_actors=True,
            scheduler=PopulationBasedTraining(
                time_attr="training_iteration",
                perturbation_interval=4,
                hyperparam_mutations={"lr": tune.uniform(0.001, 0.2)},
            ),
        ),
        run_config=tune.RunConfig(
            storage_path=tempfile.mkdtemp(), stop={"training_iteration": EPOCHS}, verbose=0
        ),
    )
    tuner = safety.govern(tuner, LIMITS, cost, trial_seconds=120, reports=EPOCHS)
    results = tuner.fit()
    for result in results:
        print(result.config, result.metrics and result.metrics.get("accuracy", "never started"))
    for budget in tuner.governor().status(tuner.sweep).budgets:
        if budget.limited:
            print(f"spent {budget.spent:,} of {budget.target:,} {budget.resource}")


if __name__ == "__main__":
    main()
