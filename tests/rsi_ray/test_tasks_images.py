"""Images of one size, standardised by the training images; a hold-out; unreadable files by name."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rsi_ray.tasks.digits import DigitsOptions, digits_task
from rsi_ray.tasks.image_folder import ImageFolderOptions, image_folder_task
from rsi_ray.tasks.images import image_domain, read_image


def random_images(count=60, shape=(3, 4, 5)):
    return np.random.default_rng(0).integers(256, size=(count, *shape), dtype=np.uint8)


def domain_of(pixels, labels=None, **options):
    labels = ["cat", "dog"] * (len(pixels) // 2) if labels is None else labels
    return image_domain("images", pixels, labels, **{"holdout_size": 20, "seed": 0, **options})


def order_of(count=60):
    return np.random.default_rng(0).permutation(count)


def test_every_channel_is_standardised_by_the_training_images_alone():
    pixels = random_images()
    pixels[order_of()[:40]] //= 4
    training = domain_of(pixels)._rows(np.arange(40, 60)).inputs
    assert training.dtype == np.float32
    assert training.mean((0, 2, 3)) == pytest.approx(0, abs=1e-4)
    assert training.std((0, 2, 3)) == pytest.approx(1, abs=1e-4)


def test_a_channel_that_never_changes_becomes_zeros():
    pixels = random_images()
    pixels[:, 1] = 255
    assert (domain_of(pixels).holdout().inputs[:, 1] == 0).all()


def test_answers_stay_with_their_images():
    pixels = random_images()
    labels = [["cat", "dog"][image[0, 0, 0] % 2] for image in pixels]
    domain = domain_of(pixels, labels)
    assert np.array_equal(domain.targets, domain.inputs[:, 0, 0, 0] % 2)
    assert domain.head.classes == 2
    assert (domain.head.channels, domain.head.height, domain.head.width) == (3, 4, 5)


def test_repeated_images_are_kept_once():
    pixels = random_images()
    domain = domain_of(np.repeat(pixels, 2, axis=0), np.repeat(["cat", "dog"] * 30, 2))
    assert sorted(image.tobytes() for image in domain.inputs) == sorted(image.tobytes() for image in pixels)


def test_no_holdout_image_is_ever_drawn_for_training():
    domain = domain_of(random_images())
    held = {image.tobytes() for image in domain.holdout().inputs}
    drawn = {image.tobytes() for image in domain.draw(np.random.default_rng(0), 2_000).inputs}
    assert (len(held), len(drawn)) == (20, 20)
    assert not held & drawn


@pytest.mark.parametrize("field", ["inputs", "targets", "mean", "deviation"])
def test_one_changed_number_changes_the_digest(field):
    domain = domain_of(random_images())
    changed = getattr(domain, field).copy()
    changed.flat[-1] += 1
    assert replace(domain, **{field: changed}).digest != domain.digest


def test_the_same_samples_split_elsewhere_have_another_digest():
    domain = domain_of(random_images())
    assert replace(domain, holdout_size=19).digest != domain.digest


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["cat"] * 60, {}, r"images: one class only \(cat\), expected two or more"),
        (["dog"] * 60, {"holdout_size": 21}, "images: 60 distinct samples, expected 63 or more"),
        (
            ["rare" if place == order_of()[0] else f"{place % 2}" for place in range(60)],
            {},
            r"images: no training sample of class rare \(1 of 3 classes have none\)",
        ),
    ],
)
def test_images_that_cannot_be_split_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        domain_of(random_images(), labels, **options)


def test_the_digits_have_the_shapes_that_their_head_declares():
    task = digits_task(DigitsOptions())
    batch = task.batch(np.random.default_rng(0), 3)["digits"]
    assert batch.inputs.shape == (3, 1, 8, 8)
    assert batch.targets.shape == (3,)
    assert [(head.name, head.classes) for head in task.heads] == [("digits", 10)]
    assert len(task.holdout()["digits"].inputs) == task.holdout_size == 256


def test_the_digits_are_split_by_their_seed():
    one, other = digits_task(DigitsOptions()), digits_task(DigitsOptions(seed=1))
    assert digits_task.__wrapped__(DigitsOptions()).digest == one.digest != other.digest
    assert digits_task(DigitsOptions(seed=0)) is one


@pytest.fixture
def folder(tmp_path):
    for label, grey in (("cat", 40), ("dog", 200)):
        (tmp_path / label).mkdir()
        for number in range(10):
            pixels = np.full((6, 9, 3), grey + number, dtype=np.uint8)
            pixels[:, :4, 0] = 0
            suffix = ("png", "jpg", "JPEG")[number % 3]
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.{suffix}")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("none of these")
    return tmp_path


def options_of(folder, **options):
    return ImageFolderOptions(**{"path": str(folder), "height": 4, "width": 8, "holdout_size": 6, **options})


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_a_folder_are_stretched_and_labelled_by_their_folder(folder, channels):
    task = image_folder_task(options_of(folder, channels=channels))
    batch = task.batch(np.random.default_rng(0), 5)["images"]
    assert batch.inputs.shape == (5, channels, 4, 8)
    dark = batch.inputs.mean((1, 2, 3)) < 0
    assert np.array_equal(batch.targets, np.where(dark, 0, 1))
    held = {image.tobytes() for image in task.holdout()["images"].inputs}
    drawn = {image.tobytes() for image in task.batch(np.random.default_rng(0), 500)["images"].inputs}
    assert (len(held), len(drawn)) == (6, 8)


def test_rows_and_columns_of_a_picture_are_not_swapped():
    buffer = io.BytesIO()
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(pixels).save(buffer, "png")
    assert np.array_equal(read_image(buffer.getvalue(), where="x", size=(2, 3), channels=1), pixels[None])


def test_a_picture_that_cannot_be_read_is_named(folder):
    (folder / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(ValueError, match=r"dog/broken\.png: .*expected a picture that Pillow reads$"):
        image_folder_task(options_of(folder))


def test_a_picture_that_ends_too_early_is_named(folder):
    path = folder / "dog" / "0.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"dog/0\.png: .*expected a picture that Pillow reads$"):
        image_folder_task(options_of(folder))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^path: .*nowhere is not a folder"):
        image_folder_task(options_of(tmp_path / "nowhere"))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^path: .* holds no folders, expected one for each class"):
        image_folder_task(options_of(tmp_path))


def test_a_class_without_pictures_is_refused_by_its_folder(folder):
    (folder / "eel").mkdir()
    with pytest.raises(ValueError, match=r"^path: no pictures in .*eel, expected files \.png"):
        image_folder_task(options_of(folder))


@pytest.mark.parametrize(
    ("name", "value"),
    [("path", ""), ("height", 0), ("width", 1.5), ("channels", 2), ("holdout_size", 0), ("seed", -1)],
)
def test_an_option_of_an_image_folder_that_is_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        ImageFolderOptions(**{"path": "pictures", name: value})


@pytest.mark.parametrize("name", ["holdout_size", "seed"])
def test_an_option_of_the_digits_that_is_out_of_its_range_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        DigitsOptions(**{name: -1})
