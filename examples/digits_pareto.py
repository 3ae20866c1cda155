"""Handwritten digits: convolutional networks that score well and are small, and what a score costs."""

import rsi_ray
from rsi_ray.tasks import digits_task
from search_spaces import ConvSpace

LIMITS = {
    "bounds": {"max_params": 100e3, "max_flops": 5e6, "max_memory": 1e9},
    "sweep": {"trials": 40, "train_flops": 1e13},
}

if __name__ == "__main__":
    training = rsi_ray.Training(epochs=4, steps_per_epoch=30)
    sweep = rsi_ray.Sweep(
        ConvSpace(heads=digits_task().heads, batch_size=training.batch_size),
        digits_task,
        LIMITS,
        training=training,
        hyperparameters=rsi_ray.TrainingChoices(learning_rate=(1e-3, 1e-2)),
        objectives=("score", "params"),
        sampler="nsga2",
        scheduler="fifo",
        trials=16,
    )
    result = sweep.run()
    print(result.front[["number", "score", "params", "forward_flops"]])
