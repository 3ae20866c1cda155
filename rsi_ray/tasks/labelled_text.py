"""A domain of short texts, each of one class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rsi_ray.tasks.problems import ProblemDomain, problem_domain
from rsi_ray.tasks.samples import check_classes, held_rows
from search_spaces.transformer import Head

PAD = b"\0"


def labelled_text_domain(
    name: str, texts: Sequence[bytes], labels: Sequence[str], *, length: int, holdout_size: int, seed: int
) -> ProblemDomain:
    """Cut every text to its first bytes, pad it on the left, drop repeats, and split off what is held.

    Args:
        name: of the head.
        texts: one per sample.
        labels: class of every text; ids follow their order by code point.
        length: bytes per sample.
        holdout_size: hold-out samples, and as many that are sealed.
        seed: of the split.

    Raises:
        ValueError: too few distinct texts for the hold-out, one class only, or one without training texts.
    """
    padded = b"".join(text[:length].rjust(length, PAD) for text in texts)
    names, targets = np.unique(np.asarray(labels), return_inverse=True)
    classes = [str(label) for label in names]
    domain = problem_domain(
        Head(name=name, classes=max(1, len(classes)), length=length, dense=False),
        np.frombuffer(padded, dtype=np.uint8).reshape(len(texts), length),
        targets.astype(np.int64),
        holdout_size=holdout_size,
        rng=np.random.default_rng(seed),
    )
    check_classes(name, domain.answers, classes, held=held_rows(holdout_size))
    return domain
