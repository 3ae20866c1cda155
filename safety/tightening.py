"""Which of two limits is the tighter, field by field: limits in force only ever become tighter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import and_, or_
from typing import Any

from safety.limits import Approval, Bounds, Budgets, Limits

# the more of it, the sooner somebody steps in
_EXCESS = ("throttle", "hold", "shutdown")


def _least(one: int | None, other: int | None) -> int | None:
    """The lower of two budgets or ceilings; None is none."""
    return min((value for value in (one, other) if value is not None), default=None)


def _sternest(one: str, other: str) -> str:
    return max(one, other, key=_EXCESS.index)


def _ceilings(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Every domain of either, at its lower ceiling."""
    return {
        domain: min(given[domain] for given in (one, other) if domain in given) for domain in {**one, **other}
    }


def _in_both(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Approvers whom both name, with the same key; None is no approvers at all."""
    if one is None or other is None:
        return other if one is None else one
    return dict(one.items() & other.items())


# the tighter of two values; a field that isn't here can't be changed at all
TIGHTER: dict[str, Callable[[Any, Any], Any]] = {
    "max_generations": min,
    "min_improvement": max,
    "require_approval": or_,
    "max_improvement_rate": min,
    "improvement_window_hours": max,
    "on_excess": _sternest,
    "runaway_factor": min,
    "runaway_length": min,
    "approval.approvers": _in_both,
    "approval.quorum": max,
    "approval.hours": min,
    "approval.proposer_may_approve": and_,
    "lease_seconds": min,
    "grace_seconds": min,
    "bounds.max_params": min,
    "bounds.max_flops": min,
    "bounds.max_memory": min,
    "bounds.max_train_flops": _least,
    "bounds.max_performance": _ceilings,
    **{f"{scope}.{name}": _least for scope in ("cluster", "sweep") for name in Budgets.model_fields},
}
_SECTIONS: dict[str, type[Approval] | type[Bounds] | type[Budgets]] = {
    "approval": Approval,
    "bounds": Bounds,
    "cluster": Budgets,
    "sweep": Budgets,
}


def fields_of(limits: Limits) -> dict[str, Any]:
    """Every value of some limits by its dotted name, in the order of their declaration."""
    found: dict[str, Any] = {}
    for name in Limits.model_fields:
        value = getattr(limits, name)
        below = (
            {f"{name}.{inner}": getattr(value, inner) for inner in type(value).model_fields}
            if name in _SECTIONS
            else {}
        )
        found |= below or {name: value}
    return found


def tightest(one: Limits, other: Limits) -> Limits:
    """The tighter of two limits in every field; of a field that knows no tighter, the first's."""
    asked = fields_of(other)
    values = {
        name: TIGHTER[name](value, asked[name]) if name in TIGHTER else value
        for name, value in fields_of(one).items()
    }
    sections: dict[str, Any] = {
        section: model.model_construct(
            **{name: values.pop(f"{section}.{name}") for name in model.model_fields}
        )
        for section, model in _SECTIONS.items()
    }
    # each value was checked before; yet of approvers fewer may be left than must agree
    return Limits.model_construct(**values, **sections)


def looser_fields(old: Limits, new: Limits) -> tuple[str, ...]:
    """Dotted names of the fields in which new limits allow more than old ones; a domain is one by itself."""
    kept, asked = fields_of(tightest(old, new)), fields_of(new)
    found: list[str] = []
    for name, value in kept.items():
        if name == "bounds.max_performance":
            found += [
                f"{name}.{domain}" for domain in sorted(value) if value[domain] != asked[name].get(domain)
            ]
        elif value != asked[name]:
            found.append(name)
    return tuple(found)


def changed_fields(old: Limits, new: Limits) -> tuple[str, ...]:
    """Dotted names of the fields that differ."""
    asked = fields_of(new)
    return tuple(name for name, value in fields_of(old).items() if value != asked[name])
