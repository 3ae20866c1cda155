"""Your own PyTorch model: say what may vary and how it is built; its price is measured, not written down."""

from torch import nn

import rsi_ray
from rsi_ray.tasks import digits_task
from search_spaces import Sample


class Readout(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        layers = [layer for _ in range(depth) for layer in (nn.LazyLinear(width), nn.ReLU())]
        self.layers = nn.Sequential(nn.Flatten(), *layers, nn.LazyLinear(10))

    def forward(self, inputs):
        return {"digits": self.layers(inputs["digits"])}


class MySpace:
    def suggest(self, trial):
        return trial.suggest_int("width", 8, 128, log=True), trial.suggest_int("depth", 1, 3)

    def samples(self):
        return {"digits": Sample(shape=(1, 8, 8), dtype="float32")}

    def build(self, spec):
        return Readout(*spec)


LIMITS = {"bounds": {"max_params": 20e3, "max_flops": 1e6, "max_memory": 1e9}}

if __name__ == "__main__":
    training = rsi_ray.Training(epochs=3, steps_per_epoch=40)
    result = rsi_ray.Sweep(MySpace(), digits_task, LIMITS, training=training, trials=8).run()
    print(result.table[["number", "verdict", "score", "params", "config/width", "config/depth"]])
