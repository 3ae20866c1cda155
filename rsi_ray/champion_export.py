"""Champions for elsewhere: safetensors, an exported program, or one plain Python file that rebuilds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rsi_ray.champion_version import SUFFIX, Version, content_of
from rsi_ray.champion_weights import fill, model_of
from rsi_ray.description import CLASS, FIELDS, GIVEN, MADE_BY, OPTIONS, SHOWN, Json
from rsi_ray.durable import write_durably
from rsi_ray.errors import ChampionError
from rsi_ray.plain_source import Origin, cut
from search_spaces.space import Sample

# an export with one sample, or none, would be for this number alone
EXAMPLE_BATCH = 2
OURS = ("rsi_ray", "safety", "search_spaces")


class Model(NamedTuple):
    """What a space of ours builds: a class, and those of the space's fields that it takes beside the spec."""

    origin: Origin
    fields: tuple[str, ...]


# their spaces import torch where they build, so the model itself is written down
MODELS = {
    "search_spaces.transformer:TransformerSpace": Model(
        Origin(module="search_spaces.transformer_model", name="Transformer"), ("heads", "vocab")
    ),
    "search_spaces.convnet:ConvSpace": Model(
        Origin(module="search_spaces.convnet_model", name="ConvNet"), ("heads",)
    ),
    "search_spaces.mlp:MLPSpace": Model(Origin(module="search_spaces.mlp_model", name="MLP"), ("heads",)),
}


def export_safetensors(version: Version, out: Path) -> list[Path]:
    """Copy the file itself, manifest and digest included; the files that were written."""
    return _written({out: content_of(version)})


def export_program(version: Version, out: Path) -> list[Path]:
    """Write what `torch.export` makes of the model, for any batch size of each head; see `torch.export.load`.

    Raises:
        ChampionError: the model can't be exported, or rebuilt.
    """
    _require_approved(version)
    model = model_of(version)
    samples: Mapping[str, Sample] = version.manifest.rebuilt_space().samples()
    inputs = {
        name: torch.zeros((EXAMPLE_BATCH, *sample.shape), dtype=getattr(torch, sample.dtype))
        for name, sample in samples.items()
    }
    batches = {name: {0: torch.export.Dim(f"batch_{place}")} for place, name in enumerate(inputs)}
    _require_new(out)
    try:
        program = torch.export.export(model, (inputs,), dynamic_shapes=(batches,))
        torch.export.save(program, out)
    except Exception as error:  # whatever torch finds in a model of anybody's
        told = " ".join(str(error).split())
        raise ChampionError(f"version {version.name}: torch can't export it: {told:.300}") from None
    return [out]


def export_python(version: Version, out: Path) -> list[Path]:
    """Write a Python file that needs torch and safetensors alone, and beside it the weights that it loads.

    Raises:
        ChampionError: the model's code can't be cut out of its modules.
    """
    _require_approved(version)
    weights = out.with_suffix(SUFFIX)
    if weights == out:
        raise ChampionError(f"out {out}: expected another end, which the weights beside it have")
    text = plain_python(version, weights.name)
    return _written({out: text.encode(), weights: content_of(version)})


FORMATS: dict[str, Callable[[Version, Path], list[Path]]] = {
    "safetensors": export_safetensors,
    "torch_export": export_program,
    "python": export_python,
}


def unapproved(version: Version) -> str:
    """Why a version is none that people stand by, in a line; "" where it is one."""
    if version.state == "base":
        return "not approved: the base"
    if version.promoted is None:
        return "not approved: a candidate that was never promoted"
    if version.state == "rolled back":
        return "rolled back: its lineage went back to before it"
    return "" if version.promoted.decisions else "not approved: its limits asked for no approval"


def _require_approved(version: Version) -> None:
    """Import nothing by the word of a file that nobody approved: whoever writes there could name anything."""
    if version.state == "candidate":
        raise ChampionError(
            f"version {version.name}: never promoted, and names code to import; it may leave as safetensors"
        )


def _written(files: Mapping[Path, bytes]) -> list[Path]:
    for path in files:
        _require_new(path)
    for path, content in files.items():
        write_durably(path, content)
    return list(files)


def _require_new(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise ChampionError(f"out {path}: there already; expected the name of a new file")
    if not path.parent.is_dir():
        raise ChampionError(f"out {path}: no folder {path.parent}")


# --- plain Python


HEAD = '''"""{lineage}, generation {generation}{unapproved}: its model in plain PyTorch.

`load_model()` gives it in evaluation mode with the weights beside this file; called with a batch of inputs by
head, it answers by head. It needs torch and safetensors. Made by rsi-ray.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
{code}


SPEC = {spec}
WEIGHTS = Path(__file__).with_name({weights!r})
DIGEST = {digest!r}


def build_model():
    """The model, with first weights."""
    return {model}


def load_model(path=WEIGHTS):
    """The model with the champion's weights, which are what they were."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != DIGEST:
        raise ValueError(f"{{path}}: other weights; expected a file with the SHA-256 {{DIGEST}}")
    model = build_model()
    fill(model, safetensors.torch.load(content))
    return model.eval()
'''
# what the file has of its own
TAKEN = {
    "hashlib": Origin(module="hashlib", name=""),
    "Path": Origin(module="pathlib", name="Path"),
    "safetensors": Origin(module="safetensors", name=""),
    **{name: Origin(module="the file", name=name) for name in ("SPEC", "WEIGHTS", "DIGEST")},
    **{name: Origin(module="the file", name=name) for name in ("build_model", "load_model")},
}


def plain_python(version: Version, weights: str) -> str:
    """Text of a Python file that rebuilds a version.

    Args:
        version: whose model it is.
        weights: name of the file beside it.

    Raises:
        ChampionError: its code can't be cut out of its modules.
    """
    manifest, roots = version.manifest, [Origin(module=fill.__module__, name=fill.__name__)]
    spec = _expression(manifest.spec, roots)
    model = _model(manifest.space, roots)
    inside = {*OURS, *(root.module.partition(".")[0] for root in roots)}
    return HEAD.format(
        lineage=manifest.lineage,
        generation=manifest.generation,
        unapproved=f" ({unapproved(version)})" if unapproved(version) else "",
        weights=weights,
        digest=version.artifact,
        code=cut(roots, inside, TAKEN),
        spec=spec,
        model=model,
    )


def _model(space: Json, roots: list[Origin]) -> str:
    """Expression of a model of SPEC."""
    known = MODELS.get(str(space.get(CLASS))) if isinstance(space, dict) else None
    if known is None:
        return f"{_expression(space, roots)}.build(SPEC)"
    roots.append(known.origin)
    fields: Any = space[FIELDS]  # type: ignore[index, call-overload]
    given = "".join(f", {name}={_expression(fields[name], roots)}" for name in known.fields)
    return f"{known.origin.name}(SPEC{given})"


def _expression(description: Json, roots: list[Origin]) -> str:
    """Python of what was described; what it names is added to the roots."""
    if isinstance(description, list):
        inside = "".join(f"{_expression(one, roots)}, " for one in description)
        return f"({inside.rstrip() if len(description) == 1 else inside.removesuffix(', ')})"
    if not isinstance(description, dict):
        return repr(description)
    if description.keys() == {CLASS, FIELDS}:
        return _call(description[CLASS], description[FIELDS], roots)
    if description.keys() == {MADE_BY, OPTIONS, GIVEN}:
        return _call(description[MADE_BY], description[GIVEN], roots, f"**{description[OPTIONS]!r}, ")
    if description.keys() == {SHOWN}:
        raise ChampionError(f"{description[SHOWN]!s:.80}: made in Python, and can't be written down")
    told = (f"{name!r}: {_expression(value, roots)}" for name, value in description.items())
    return f"{{{', '.join(told)}}}"


def _call(name: Json, keywords: Any, roots: list[Origin], plain: str = "") -> str:
    module, _, called = str(name).partition(":")
    for one in (called, *keywords):
        if not one.isidentifier():
            raise ChampionError(f"{name}: {one!r}, expected a name at the top level of its module")
    roots.append(Origin(module=module, name=called))
    given = ", ".join(f"{key}={_expression(value, roots)}" for key, value in keywords.items())
    return f"{called}({plain}{given})"
