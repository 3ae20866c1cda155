"""Datasets of the Hugging Face library become texts, images or tables; the library itself is optional."""

import io
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rsi_ray.tasks.hugging_face import HuggingFaceOptions, frame_domain, hugging_face_task

ROWS = 60


def picture(grey):
    buffer = io.BytesIO()
    Image.fromarray(np.full((5, 7), grey, dtype=np.uint8)).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, size=(ROWS, 100), dtype=np.uint8)
    return pd.DataFrame(
        {
            "poem": [row.tobytes().decode() for row in letters],
            "picture": [picture(2 * row) for row in range(ROWS)],
            "size": rng.normal(size=ROWS),
            "colour": ["red", "blue"] * (ROWS // 2),
            "noise": rng.normal(size=ROWS),
            "label": np.arange(ROWS) % 2,
        }
    )


def options_of(**options):
    return HuggingFaceOptions(
        **{"dataset": "shop", "text_length": 16, "height": 5, "width": 7, "channels": 1, **options},
        holdout_size=10,
    )


def test_a_column_of_texts_is_predicted_byte_by_byte(frame):
    domain = frame_domain(frame, options_of(text="poem"))
    assert domain.head.dense
    assert domain.holdout().inputs.shape == (10, 16)
    assert b"\n\n".join(poem.encode() for poem in frame["poem"]) == domain.text.tobytes()


def test_a_column_of_texts_with_a_target_is_classified(frame):
    domain = frame_domain(frame, options_of(text="poem", target="label"))
    assert not domain.head.dense
    label_of = {poem[:16].encode(): label for poem, label in zip(frame["poem"], frame["label"], strict=True)}
    assert [label_of[row.tobytes()] for row in domain.problems] == list(domain.answers)


def test_a_column_of_pictures_is_classified(frame):
    domain = frame_domain(frame, options_of(image="picture", target="label"))
    assert domain.holdout().inputs.shape == (10, 1, 5, 7)
    assert np.array_equal(domain.targets, domain.inputs[:, 0, 0, 0] // 2 % 2)


def test_a_picture_that_is_kept_as_a_path_is_read(frame, tmp_path):
    (tmp_path / "own.png").write_bytes(picture(255)["bytes"])
    frame["picture"] = [{"bytes": None, "path": str(tmp_path / "own.png")}, *frame["picture"][1:]]
    domain = frame_domain(frame, options_of(image="picture", target="label"))
    assert 255 in domain.inputs


def test_only_the_columns_that_are_named_are_features_of_a_table(frame):
    domain = frame_domain(frame, options_of(features=("size", "colour"), target="noise"))
    assert (domain.head.features, domain.head.outputs) == (3, 1)
    assert domain.targets.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"text": "prose"}, "shop: no column 'prose', expected one of poem, picture, size"),
        ({}, {"image": "picture", "target": "kind"}, "shop: no column 'kind', expected one of poem"),
        ({}, {"text": "size"}, "shop: column 'size', row 0: expected text, found -?0."),
        (
            {},
            {"image": "poem", "target": "label"},
            "shop: column 'poem', row 0: expected a picture, found str",
        ),
        ({"label": None}, {"text": "poem", "target": "label"}, "shop: target 'label' is missing in 60 rows"),
        (
            {"picture": [{"bytes": b"x"}] * ROWS},
            {"image": "picture", "target": "label"},
            "shop: column 'picture', row 0: .*expected a picture that Pillow reads",
        ),
    ],
)
def test_a_frame_that_cannot_be_used_is_refused_in_one_line(frame, change, options, message):
    with pytest.raises(ValueError, match=f"^{message}") as refused:
        frame_domain(frame.assign(**change), options_of(**options))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of text, image and features"),
        ({"text": "poem", "image": "picture"}, "exactly one of text, image and features"),
        ({"image": "picture"}, "target must be given"),
        ({"features": ("size",)}, "target must be given"),
        ({"features": ["size"], "target": "label"}, "features must be a tuple of texts"),
        ({"text": "poem", "dataset": ""}, "dataset must be a text"),
        ({"text": "poem", "split": None}, "split must be a text"),
        ({"text": ""}, "text must be a text"),
        ({"text": "poem", "subset": ["a"]}, "subset must be a text"),
        ({"text": "poem", "channels": 4}, "channels must be 1 or 3"),
        ({"text": "poem", "target_kind": "ranking"}, "target_kind must be one of classification, regression"),
        ({"text": "poem", "text_length": 0}, "text_length must be a whole number"),
    ],
)
def test_an_option_that_is_out_of_its_range_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        HuggingFaceOptions(**{"dataset": "shop", **given})


def test_without_the_library_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"^task hugging_face: it needs datasets .*`pip install datasets`$"):
        hugging_face_task(HuggingFaceOptions(dataset="shop", text="poem"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    columns = {"size": rng.normal(size=ROWS), "label": np.arange(ROWS) % 2}
    (tmp_path / "shop").mkdir()
    pd.DataFrame(columns).to_csv(tmp_path / "shop" / "train.csv", index=False)
    return tmp_path / "shop"


def test_a_folder_is_loaded_by_the_library(folder):
    options = HuggingFaceOptions(dataset=str(folder), features=("size",), target="label", holdout_size=10)
    task = hugging_face_task(options)
    assert task.holdout()["table"].inputs.shape == (10, 1)
    assert [(head.name, head.outputs) for head in task.heads] == [("table", 2)]


def test_a_folder_that_the_library_cannot_read_is_refused_in_one_line(folder):
    (folder / "train.csv").write_text("size,label\n1,2\n1,2,3\n")
    options = HuggingFaceOptions(dataset=str(folder), features=("size",), target="label", holdout_size=10)
    with pytest.raises(ValueError, match=r"^dataset: .*shop, split train: ") as refused:
        hugging_face_task(options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [{"dataset": "/nowhere"}, {"split": "exam"}])
def test_a_dataset_or_split_that_is_not_there_is_refused_in_one_line(folder, change):
    given = {"dataset": str(folder), "features": ("size",), "target": "label", "holdout_size": 10}
    with pytest.raises(ValueError, match=r"^dataset: .*, split \w+: ") as refused:
        hugging_face_task(HuggingFaceOptions(**{**given, **change}))
    assert "\n" not in str(refused.value)
