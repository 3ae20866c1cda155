"""Our metrics as Ray exports them."""

from rsi_ray.device_metrics import METRICS as OF_WORKER
from rsi_ray.metrics import METRICS as OF_SWEEP
from safety.metrics import METRICS as OF_LEDGER
from safety.metrics import Metric


def _exported_as(name: str, metric: Metric) -> str:
    return f"ray_{name}_total" if metric.kind == "counter" else f"ray_{name}"


OURS = {**OF_LEDGER, **OF_SWEEP, **OF_WORKER}
EXPORTED = {_exported_as(name, metric): metric for name, metric in OURS.items()}
