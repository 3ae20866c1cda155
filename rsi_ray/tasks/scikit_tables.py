"""The tasks `breast_cancer` and `diabetes`: tables that scikit-learn carries along."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rsi_ray.tasks.options import HOLDOUT_SIZES, SEEDS, check_ranges, library
from rsi_ray.tasks.table import Kind, table_domain
from rsi_ray.tasks.task import DomainTask
from search_spaces.heads import TableHead


@dataclass(frozen=True, kw_only=True, slots=True)
class BreastCancerOptions:
    """How the table is split: 569 tumours, 30 features, benign or malignant.

    Attributes:
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    holdout_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, {"holdout_size": HOLDOUT_SIZES, "seed": SEEDS})


@dataclass(frozen=True, kw_only=True, slots=True)
class DiabetesOptions:
    """How the table is split: 442 patients, 10 features, progression of the disease after a year.

    Attributes:
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """

    holdout_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, {"holdout_size": HOLDOUT_SIZES, "seed": SEEDS})


BREAST_CANCER_DEFAULTS = BreastCancerOptions()


@lru_cache(maxsize=2)
def breast_cancer_task(options: BreastCancerOptions = BREAST_CANCER_DEFAULTS) -> DomainTask[TableHead]:
    """Return the classification task with these options, prepared once per process.

    Raises:
        ValueError: scikit-learn isn't installed, or the hold-out is more than a third of the table.
    """
    return _task("breast_cancer", "classification", options.holdout_size, options.seed)


DIABETES_DEFAULTS = DiabetesOptions()


@lru_cache(maxsize=2)
def diabetes_task(options: DiabetesOptions = DIABETES_DEFAULTS) -> DomainTask[TableHead]:
    """Return the regression task with these options, prepared once per process.

    Raises:
        ValueError: scikit-learn isn't installed, or the hold-out is more than a third of the table.
    """
    return _task("diabetes", "regression", options.holdout_size, options.seed)


def _task(name: str, kind: Kind, holdout_size: int, seed: int) -> DomainTask[TableHead]:
    datasets = library("sklearn.datasets", package="scikit-learn", task=name)
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    domain = table_domain(
        name, frame, target="target", kind=kind, holdout_size=holdout_size, seed=seed, where=name
    )
    return DomainTask([domain], holdout_size=holdout_size)
