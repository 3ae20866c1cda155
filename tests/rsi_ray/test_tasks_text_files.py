"""The user's own texts, labelled texts and the options that all tasks share."""

import numpy as np
import pytest

from rsi_ray.tasks import TASKS
from rsi_ray.tasks.labelled_text import labelled_text_domain
from rsi_ray.tasks.options import library
from rsi_ray.tasks.scikit_tables import (
    BreastCancerOptions,
    DiabetesOptions,
    breast_cancer_task,
    diabetes_task,
)
from rsi_ray.tasks.text_files import TextFilesOptions, text_files_task


def prose(seed, size=4_000):
    return np.random.default_rng(seed).integers(97, 123, size=size, dtype=np.uint8).tobytes()


def options_of(*paths, **options):
    return TextFilesOptions(
        **{"paths": tuple(map(str, paths)), "text_length": 16, "holdout_size": 8, **options}
    )


def test_a_folder_gives_its_text_files_and_those_of_folders_within(tmp_path):
    (tmp_path / "within").mkdir()
    (tmp_path / "b.txt").write_bytes(prose(0))
    (tmp_path / "within" / "a.txt").write_bytes(prose(1))
    (tmp_path / "c.md").write_bytes(prose(2))
    listed = text_files_task(options_of(tmp_path / "b.txt", tmp_path / "within" / "a.txt"))
    assert text_files_task(options_of(tmp_path)).digest == listed.digest
    assert text_files_task(options_of(tmp_path / "b.txt")).digest != listed.digest


def test_the_next_byte_of_a_text_is_predicted_at_every_place(tmp_path):
    (tmp_path / "a.txt").write_bytes(prose(0))
    task = text_files_task(options_of(tmp_path))
    batch = task.batch(np.random.default_rng(0), 3)["text"]
    assert batch.inputs.shape == batch.targets.shape == (3, 16)
    assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert [(head.name, head.classes, head.dense) for head in task.heads] == [("text", 256, True)]
    assert len(task.holdout()["text"].inputs) == 8


def test_no_holdout_span_is_ever_drawn_for_training(tmp_path):
    (tmp_path / "a.txt").write_bytes(prose(0))
    (tmp_path / "copy.txt").write_bytes(prose(0))
    task = text_files_task(options_of(tmp_path))
    held = {row.tobytes() for row in task.holdout()["text"].inputs}
    drawn = {row.tobytes() for row in task.batch(np.random.default_rng(0), 40_000)["text"].inputs}
    assert len(drawn) > 3_000
    assert not held & drawn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"^paths: .*texts: No such file or directory, expected a file or folder"),
        (lambda path: path.mkdir(), r"^paths: no \.txt file in the folder .*texts, expected one or more"),
        (lambda path: path.write_bytes(b""), "^text: 0 bytes are too few for 8 hold-out spans"),
    ],
)
def test_texts_that_cannot_be_read_are_refused_in_one_line(tmp_path, make, message):
    make(tmp_path / "texts")
    with pytest.raises(ValueError, match=message):
        text_files_task(options_of(tmp_path / "texts"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("paths", ()), ("paths", ["a.txt"]), ("paths", ("",)), ("text_length", 0), ("holdout_size", True)],
)
def test_an_option_of_text_files_that_is_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must "):
        TextFilesOptions(**{"paths": ("a.txt",), name: value})


def labelled(count=60, **options):
    texts = [prose(seed, 5 + seed % 10) for seed in range(count)]
    labels = ["odd" if text[0] % 2 else "even" for text in texts]
    return texts, labelled_text_domain(
        "text", texts, labels, **{"length": 8, "holdout_size": 20, "seed": 0, **options}
    )


def test_a_labelled_text_is_cut_to_its_first_bytes_or_padded_on_the_left():
    texts, domain = labelled()
    assert {row.tobytes() for row in domain.problems} == {text[:8].rjust(8, b"\0") for text in texts}
    first = [row.tobytes().lstrip(b"\0")[0] for row in domain.problems]
    assert np.array_equal(domain.answers, np.array(first) % 2)
    assert not domain.head.dense


def test_labelled_texts_of_one_class_are_refused():
    with pytest.raises(ValueError, match=r"^text: one class only \(a\)"):
        labelled_text_domain(
            "text", [prose(s, 8) for s in range(60)], ["a"] * 60, length=8, holdout_size=20, seed=0
        )


@pytest.mark.parametrize(
    ("load", "options", "features", "outputs", "dtype"),
    [
        (breast_cancer_task, BreastCancerOptions(), 30, 2, np.int64),
        (diabetes_task, DiabetesOptions(), 10, 1, np.float32),
    ],
)
def test_a_bundled_table_has_the_shapes_that_its_head_declares(load, options, features, outputs, dtype):
    task = load(options)
    (head,) = task.heads
    assert (head.features, head.outputs) == (features, outputs)
    batch = task.batch(np.random.default_rng(0), 7)[head.name]
    assert batch.inputs.shape == (7, features)
    assert batch.targets.dtype == dtype
    assert len(task.holdout()[head.name].inputs) == task.holdout_size == options.holdout_size


@pytest.mark.parametrize("options", [BreastCancerOptions, DiabetesOptions])
@pytest.mark.parametrize("name", ["holdout_size", "seed"])
def test_an_option_of_a_bundled_table_that_is_out_of_its_range_is_refused_by_name(options, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        options(**{name: -1})


def test_a_library_that_is_not_installed_is_named_with_the_way_to_install_it():
    with pytest.raises(ValueError, match=r"^task fish: it needs a-library .*`pip install a-library`$"):
        library("a_library_that_is_not_there.part", package="a-library", task="fish")


REQUIRED = {
    "text_files": {"paths": ("a.txt",)},
    "image_folder": {"path": "pictures"},
    "table": {"path": "shop.csv", "target": "plan"},
    "hugging_face": {"dataset": "poems", "text": "poem"},
}


@pytest.mark.parametrize("name", list(TASKS))
def test_the_options_of_every_task_are_values_that_can_be_hashed(name):
    options, load = TASKS[name]
    given = REQUIRED.get(name, {})
    assert hash(options(**given)) == hash(options(**given))
    assert options(**given) == options(**given)
    assert callable(load.cache_info)
