"""Ray shell: a price is tried before a sweep begins, on a configuration that its space may propose."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.tune.search.variant_generator import generate_variants

from safety.errors import PriceError
from safety.pricing import Pricing

logger = logging.getLogger(__name__)


def try_price(pricing: Pricing, param_space: dict[str, Any] | None) -> None:
    """Better an error now than a sweep whose every trial is refused.

    Raises:
        PriceError: a budget counts what nobody tells.
    """
    sample = {} if pricing.cost is None else _sample(param_space)
    if sample is None:
        return
    try:
        pricing(sample)
    except PriceError:
        raise
    except Exception as error:  # of this sample alone, perhaps: it would be refused
        logger.warning("cost: raised %s: %s, for %r", type(error).__name__, error, sample)


def _sample(param_space: dict[str, Any] | None) -> Mapping[str, Any] | None:
    """One configuration of a space, drawn without touching anybody's random numbers; None if not possible."""
    try:
        variants = generate_variants(
            {"config": copy.deepcopy(param_space)}, random_state=np.random.default_rng(0)
        )
        _, spec = next(iter(variants))
    except Exception as error:  # spaces may hold functions that want a whole run around them
        logger.debug("no sample of the space can be drawn: %s", error)
        return None
    config: Mapping[str, Any] | None = spec["config"]
    return config
