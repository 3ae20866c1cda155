"""The reference of the YAML file, generated from the models that parse it."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rsi_ray.config import SweepConfig
from rsi_ray.sections import OwnSection
from rsi_ray.wiring import SPACES, TASK_SECTIONS
from safety.document import flop_count, whole_number

HEAD = """\
# The YAML file

What `rsi-ray run FILE` reads. A key that isn't here is refused, and so is a value of another type: the
message names the file, the line and the field. `10e9` is a whole number. `rsi-ray config` prints the file of
the built-in job, to start your own from.

This page is generated from the models that parse the file; `make reference` writes it anew.
"""
TOP = "The file"
OWN = "module:Class"
# parts whose keys depend on their kind
KINDS: dict[str, dict[str, type[BaseModel]]] = {
    "space": {**SPACES, OWN: OwnSection},
    "task": {**TASK_SECTIONS, OWN: OwnSection},
}
PLURALS = {"whole number": "whole numbers", "number": "numbers", "text": "texts", "true or false": "booleans"}
NOTES = {
    "baseline": """\
The baseline's parameters are those that the space asks for; of a transformer `width`, `head_size`,
`kv_groups`, `depth`, `ffn_ratio`, `ffn_kind`, `norm`, `position`, `tied`. Each is one of the values that the
space offers; where it offers one value only, it isn't asked for, and is left out here. Hyperparameters that
are searched are `training.learning_rate` and so on. The columns `config/...` of a run's results are such
parameters.
""",
    "alerts": """\
An alert is sent again until somebody says `rsi-ray incidents acknowledge`: after a try that failed with
growing pauses, after one that was taken with the longest. That a sink took nothing is in the audit once, and
keeps nothing from being frozen, saved and reverted. The webhook gets a POST; any answer of 2xx takes it.
A URL that holds a secret is in the run's own file and in the folder of incidents, and in no message.
""",
    "training.members": """\
All members of a candidate are one trial under one lease, which holds the memory, the FLOPs and the parameters
at a time of all of them; the ceilings on parameters and FLOPs are of each. The same seed is the same first
weights and batches for every learning rate. After each report one member stands for all: of the learning
rate whose median over the seeds is best the seed in the middle (of an even number the lower of the two).
Its score is what is reported, and its weights are what is kept, so that an evaluator finds what was reported;
a ceiling of `max_performance` holds for every member. The columns `members/...` of a run's results tell its
learning rate and seed, and the lowest, mean and highest score of the seeds beside it. Models with dropout, or
with buffers that training changes, are trained one after the other.
""",
    "limits": """\
`max_generations`, `min_improvement`, `require_approval` and `bounds` are the keys of a `safety_config` dict
in Python, which `safety.limits_from_dict` reads. The first three are for the loop over generations;
the second binds nothing before there is one, the others bind whoever has the ledger promote a champion.
""",
    "limits.approval": """\
An approver makes a key by `rsi-ray approvals key --out FILE` and gives away what is printed. The first
approvers of a ledger are named by whoever tightens its limits first; from then on a change of them is a
loosening, but for one that takes an approver out or raises the quorum. Several limits count together: an
approver is one whom all of them name that name any, the quorum is the largest, the hours are the fewest.
For the kill switch these are the version that binds every sweep and the limits of each open sweep, both when
it is thrown and when it is lifted; for looser limits the same, where that version names approvers; for a
champion the limits of its lineage's sweeps. An approver may reject what was approved, and a rejection stays.
Limits that would leave fewer approvers than must agree don't come into force. Who asks is told by
`--by` or taken from the user, and is not proven.
""",
    "limits.cluster": """\
A budget of the cluster is one account in the ledger: all sweeps that name the same ledger spend from it.
""",
}


def reference() -> str:
    """Markdown: one table for each section of the file, in the order of the models."""
    parts = [HEAD]
    for model, places in sections().items():
        title = " and ".join(places) or TOP
        about = inspect.getdoc(model) or ""
        first, *_ = about.split("\n\n")
        parts.append(f"## {title}\n\n{first}\n\n{_table(model, places[0])}\n")
        below = [place for place in (*places, *_leaves(model, places[0])) if place in NOTES]
        parts += [NOTES[place] for place in below]
    return "\n".join(parts)


def sections() -> dict[type[BaseModel], list[str]]:
    """Each model, with the dotted places where it stands in the file."""
    found: dict[type[BaseModel], list[str]] = {}
    for place, model in _walk(SweepConfig, ""):
        found.setdefault(model, []).append(place)
    return found


def _walk(model: type[BaseModel], place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield place, model
    for name, field in model.model_fields.items():
        below = _model_in(field.annotation)
        if name in KINDS:
            yield from ((f"{name} of kind {kind}", one) for kind, one in KINDS[name].items())
        elif below is not None:
            yield from _walk(below, _dotted(place, name))


def _leaves(model: type[BaseModel], place: str) -> list[str]:
    fields = model.model_fields.items()
    return [_dotted(place, name) for name, field in fields if _model_in(field.annotation) is None]


def _dotted(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _table(model: type[BaseModel], place: str) -> str:
    rows = [("key", "expected", "default", "meaning"), ("---", "---", "---", "---")]
    for name, field in model.model_fields.items():
        expected = (
            _kind_links(name)
            or _section_link(field, _dotted(place, name))
            or _words(field.annotation, field.metadata)
        )
        rows.append((f"`{name}`", expected, _default(field), field.description or ""))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _kind_links(name: str) -> str:
    titles = sections()
    kinds = KINDS.get(name, {}).items()
    links = [f"[{kind}](#{_anchor(' and '.join(titles[model]))})" for kind, model in kinds]
    return f"mapping with a `kind`: {', '.join(links)}" if links else ""


def _anchor(title: str) -> str:
    return title.lower().replace(".", "").replace(":", "").replace(" ", "-")


def _section_link(field: FieldInfo, place: str) -> str:
    model = _model_in(field.annotation)
    if model is None:
        return ""
    anchor = _anchor(" and ".join(sections()[model]))
    others = [kind for kind in get_args(field.annotation) if kind not in (model, type(None))]
    return " or ".join([f"[{place}](#{anchor})", *(_words(kind, []) for kind in others)])


def _words(annotation: Any, metadata: list[Any]) -> str:
    """What a value must be, in plain words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        given = [*annotation.__metadata__, *metadata]
        rules = [rule for item in given for rule in (getattr(item, "metadata", None) or [item])]
        return _words(annotation.__origin__, rules)
    if origin in (Union, UnionType):
        return " or ".join(_words(kind, metadata) for kind in inside if kind is not type(None))
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inside)
    if origin is list:
        return _list_words(_words(inside[0], []), _bound(metadata, "max_length"))
    if origin is dict:
        return f"mapping of names to {_plural(_words(inside[1], []))}"
    return _PLAIN.get(annotation, "value") + _range(annotation, metadata)


_PLAIN: Mapping[Any, str] = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def _list_words(item: str, length: Any) -> str:
    size = f"list of {length}" if length else "list of"
    return f"{size} {_plural(item)}"


def _plural(words: str) -> str:
    for one, many in PLURALS.items():
        if words.startswith(one):
            return many + words.removeprefix(one)
    return "values" if words == "value" else words


def _range(annotation: Any, metadata: list[Any]) -> str:
    low, over, high = (_bound(metadata, name) for name in ("ge", "gt", "le"))
    if low is None and _is_whole(metadata) and annotation is int:
        low = 0
    words = ""
    if over is not None:
        words += f" over {over:,}"
    if low is not None:
        words += f" from {low:,}"
    if high is not None:
        words += f" to {high:,}"
    return words


def _is_whole(metadata: list[Any]) -> bool:
    return any(
        isinstance(rule, BeforeValidator) and rule.func in (whole_number, flop_count) for rule in metadata
    )


def _bound(metadata: list[Any], name: str) -> Any:
    return next((getattr(rule, name) for rule in metadata if getattr(rule, name, None) is not None), None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined:
        return "empty" if _model_in(field.annotation) is None else "its defaults"
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
