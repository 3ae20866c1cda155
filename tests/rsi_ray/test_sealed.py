"""The sealed part of every kind of task: as large as the hold-out, nothing of which is in it, never drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rsi_ray.tasks import (
    TASKS,
    BreastCancerOptions,
    BuiltInOptions,
    DiabetesOptions,
    DigitsOptions,
    HuggingFaceOptions,
    ImageFolderOptions,
    TableOptions,
    TextFilesOptions,
)
from rsi_ray.tasks.hugging_face import frame_domain
from rsi_ray.tasks.problems import ProblemDomain
from rsi_ray.tasks.samples import SampleDomain
from rsi_ray.tasks.task import Batch, DomainTask, sealed_part

SIZE = 20
TRAINING = 4_000


def numbers(rows=120):
    return np.random.default_rng(0).normal(size=rows)


def built_in(folder):
    return BuiltInOptions(code_bytes=100_000, problems=1_000, holdout_size=SIZE)


def text_files(folder):
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat"], 5_000)
    (folder / "a.txt").write_text(" ".join(words))
    return TextFilesOptions(paths=(str(folder),), text_length=32, holdout_size=SIZE)


def image_folder(folder):
    for label in ("cat", "dog"):
        (folder / label).mkdir()
        for number in range(40):
            grey = Image.new("L", (5, 5), 2 * number + (label == "dog"))
            grey.save(folder / label / f"{number}.png")
    return ImageFolderOptions(path=str(folder), height=5, width=5, channels=1, holdout_size=SIZE)


def table(folder):
    pd.DataFrame({"size": numbers(), "price": numbers()}).to_csv(folder / "shop.csv", index=False)
    return TableOptions(path=str(folder / "shop.csv"), target="price", holdout_size=SIZE)


KINDS = {
    "built_in": built_in,
    "digits": lambda _: DigitsOptions(holdout_size=SIZE),
    "breast_cancer": lambda _: BreastCancerOptions(holdout_size=SIZE),
    "diabetes": lambda _: DiabetesOptions(holdout_size=SIZE),
    "text_files": text_files,
    "image_folder": image_folder,
    "table": table,
}


def hugging_face(**options):
    verses = np.random.default_rng(0).bytes(120 * 20).hex()
    frame = pd.DataFrame(
        {
            "poem": [verses[start : start + 40] for start in range(0, len(verses), 40)],
            "size": numbers(),
            "label": np.arange(120) % 2,
        }
    )
    given = HuggingFaceOptions(dataset="shop", text_length=12, holdout_size=SIZE, **options)
    return DomainTask([frame_domain(frame, given)], holdout_size=SIZE)


OF_HUGGING_FACE = {
    "hugging_face text": {"text": "poem"},
    "hugging_face labelled text": {"text": "poem", "target": "label"},
    "hugging_face table": {"features": ("size",), "target": "label"},
}


@pytest.fixture(params=[*KINDS, *OF_HUGGING_FACE])
def task(request, tmp_path):
    if request.param in OF_HUGGING_FACE:
        return hugging_face(**OF_HUGGING_FACE[request.param])
    _, load = TASKS[request.param]
    return load(KINDS[request.param](tmp_path))


def rows(batch: Batch) -> set[bytes]:
    return {row.tobytes() for row in batch.inputs}


def test_every_kind_of_task_is_tried_here():
    assert {*KINDS, "hugging_face"} == set(TASKS)


def test_what_is_sealed_is_neither_held_out_nor_ever_drawn(task):
    sealed, is_sealed = sealed_part(task)
    holdout, drawn = task.holdout(), task.batch(np.random.default_rng(0), TRAINING)
    assert is_sealed
    assert list(sealed) == [head.name for head in task.heads]
    for name in sealed:
        assert sealed[name].inputs.shape == holdout[name].inputs.shape
        assert sealed[name].targets.shape == holdout[name].targets.shape
        assert len(rows(sealed[name])) == task.holdout_size == SIZE
        assert not rows(sealed[name]) & rows(holdout[name])
        assert not rows(sealed[name]) & rows(drawn[name])


def test_one_changed_sealed_sample_changes_the_digest(tmp_path):
    for kind, field in {"built_in": "problems", "digits": "inputs"}.items():
        _, load = TASKS[kind]
        domain = load(KINDS[kind](tmp_path))._domains[-1]
        assert isinstance(domain, ProblemDomain | SampleDomain)
        changed = getattr(domain, field).copy()
        changed[SIZE].flat[0] ^= 1
        other = replace(domain, **{field: changed})
        assert not np.array_equal(other.sealed().inputs, domain.sealed().inputs)
        assert other.digest != domain.digest


class Unsealed:
    """A task of the user's own, from before there was a sealed part."""

    def holdout(self):
        return {"own": Batch(inputs=np.zeros((2, 3), np.float32), targets=np.zeros(2, np.int64))}


def test_a_task_of_the_users_own_without_a_sealed_part_is_scored_on_its_holdout():
    part, is_sealed = sealed_part(Unsealed())
    assert not is_sealed
    assert list(part) == ["own"]
