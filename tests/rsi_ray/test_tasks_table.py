"""Tables: features by the training part alone, a hold-out, one clear line for what is wrong."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rsi_ray.tasks.table import table_domain
from rsi_ray.tasks.table_file import TableOptions, table_task

ROWS = 200


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.normal(40, 12, ROWS),
            "visits": rng.integers(1000, size=ROWS),
            "member": rng.integers(2, size=ROWS).astype(bool),
            "town": rng.choice(["Bath", "Ely", "Wells"], ROWS),
            "plan": rng.choice(["a", "b"], ROWS),
            "price": rng.normal(100, 5, ROWS),
        }
    )


def domain_of(frame, **options):
    return table_domain("table", frame, **{"target": "plan", "holdout_size": 50, "seed": 0, **options})


def training_of(domain):
    return domain.inputs[2 * domain.holdout_size :]


def test_numbers_have_mean_0_and_deviation_1_over_the_training_rows_alone(frame):
    domain = domain_of(frame, ignore=("town",))
    training = training_of(domain)
    assert training.shape == (100, 4)
    assert training.mean(0) == pytest.approx(0, abs=1e-5)
    assert training.std(0) == pytest.approx(1, abs=1e-5)
    assert np.abs(domain.holdout().inputs.mean(0)).max() > 1e-3


def test_no_row_that_is_held_changes_a_training_feature(frame):
    domain = domain_of(frame)
    held = frame.iloc[np.random.default_rng(0).permutation(ROWS)[:100]].index
    changed = frame.copy()
    changed.loc[held, "age"] *= 1000
    changed.loc[held, "town"] = "Nowhere"
    assert np.array_equal(training_of(domain_of(changed)), training_of(domain))


def test_a_missing_number_is_imputed_by_the_median_of_the_training_rows(frame):
    frame.loc[frame.index[::7], "age"] = np.nan
    domain = domain_of(frame)
    order = np.random.default_rng(0).permutation(ROWS)
    age = frame["age"].iloc[order]
    missing = age.isna().to_numpy()
    median = age.iloc[100:].median()
    imputed = age.fillna(median)
    expected = (median - imputed.iloc[100:].mean()) / imputed.iloc[100:].std(ddof=0)
    assert missing[:100].any()
    assert domain.inputs[missing, 0] == pytest.approx(expected, abs=1e-5)


def test_categories_are_one_hot_by_the_training_levels_and_others_are_all_zero(frame):
    held = np.random.default_rng(0).permutation(ROWS)[:50]
    frame.loc[held[0], "town"] = "Nowhere"
    frame.loc[held[1], "town"] = None
    towns = domain_of(frame).inputs[:, 3:6]
    order = np.random.default_rng(0).permutation(ROWS)
    expected = (frame["town"].iloc[order].to_numpy()[:, None] == np.array(["Bath", "Ely", "Wells"])).astype(
        int
    )
    assert np.array_equal(towns, expected)
    assert towns[:2].sum() == 0
    assert (towns[2:].sum(1) == 1).all()


def test_a_column_of_pandas_categories_or_of_nullable_numbers_is_read_like_any_other(frame):
    plain = domain_of(frame)
    frame["town"] = frame["town"].astype("category")
    frame["visits"] = frame["visits"].astype("Int64")
    assert np.array_equal(domain_of(frame).inputs, plain.inputs)


def test_a_column_that_is_constant_in_training_becomes_zeros(frame):
    frame["age"] = 3.0
    assert (domain_of(frame).inputs[:, 0] == 0).all()


def test_class_ids_follow_the_order_of_the_labels(frame):
    domain = domain_of(frame)
    order = np.random.default_rng(0).permutation(ROWS)
    assert np.array_equal(domain.targets, (frame["plan"].iloc[order] == "b").to_numpy())
    assert domain.targets.dtype == np.int64
    assert domain.head.outputs == 2
    assert domain.head.features == domain.inputs.shape[1] == 7


def test_whole_numbers_as_classes_are_ordered_as_numbers(frame):
    frame["plan"] = np.where(frame["plan"] == "a", 10, 9)
    order = np.random.default_rng(0).permutation(ROWS)
    assert np.array_equal(domain_of(frame).targets, (frame["plan"].iloc[order] == 10).to_numpy())


def test_a_target_of_floats_is_a_regression_standardised_by_the_training_rows(frame):
    domain = domain_of(frame, target="price")
    assert domain.targets.shape == (ROWS, 1)
    assert domain.targets.dtype == np.float32
    assert domain.targets[100:].mean() == pytest.approx(0, abs=1e-5)
    assert domain.targets[100:].std() == pytest.approx(1, abs=1e-5)
    assert domain.head.outputs == 1


def test_the_kind_that_is_given_outweighs_the_dtype_of_the_target(frame):
    assert domain_of(frame, target="visits", kind="regression").targets.dtype == np.float32
    frame["plan"] = (frame["plan"] == "a").astype(float)
    assert domain_of(frame, kind="classification").targets.dtype == np.int64


def test_rows_with_the_same_features_are_kept_once_whatever_their_target(frame):
    again = frame.assign(plan=np.where(frame["plan"] == "a", "b", "a"))
    assert len(domain_of(pd.concat([frame, again])).inputs) == ROWS


def test_training_rows_that_became_equal_to_a_row_that_is_held_are_dropped():
    levels = np.array(["x", None], dtype=object)
    frame = pd.DataFrame(
        {
            "near": np.arange(400) % 200 + np.repeat([0.0, 1e-12], 200),
            "town": levels[np.zeros(400, dtype=int)],
            "plan": ["a", "b"] * 200,
        }
    )
    domain = domain_of(frame)
    held = {row.tobytes() for row in domain.inputs[:100]}
    training = [row.tobytes() for row in domain.inputs[100:]]
    assert len(frame.drop(columns="plan").drop_duplicates()) > 300
    assert not held & set(training)
    assert len(domain.inputs) == len(domain.targets) < 300
    near = np.unique(domain.inputs[:, 0], return_inverse=True)[1]
    assert np.array_equal(domain.targets, near % 2)


def test_no_holdout_row_is_ever_drawn_for_training(frame):
    domain = domain_of(frame)
    held = {row.tobytes() for row in domain.holdout().inputs}
    drawn = {row.tobytes() for row in domain.draw(np.random.default_rng(0), 5_000).inputs}
    assert len(held) == 50
    assert len(drawn) == 100
    assert not held & drawn


def test_another_seed_is_another_split_and_another_digest(frame):
    one, same, other = domain_of(frame), domain_of(frame), domain_of(frame, seed=1)
    assert one.digest == same.digest != other.digest
    assert not np.array_equal(one.holdout().inputs, other.holdout().inputs)


@pytest.mark.parametrize("field", ["inputs", "targets"])
def test_one_changed_number_changes_the_digest(frame, field):
    domain = domain_of(frame)
    changed = getattr(domain, field).copy()
    changed.flat[-1] += 1
    assert replace(domain, **{field: changed}).digest != domain.digest


def spoil(column, value):
    return lambda frame: frame.assign(**{column: value})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            None,
            {"target": "cost"},
            "no column 'cost', expected one of age, visits, member, town, plan, price",
        ),
        (None, {"ignore": ("cost",)}, "no column 'cost', expected one of age"),
        (
            None,
            {"ignore": ("age", "visits", "member", "town", "price")},
            "no column beside the target 'plan'",
        ),
        (None, {"holdout_size": 67}, "200 distinct samples, expected 201 or more for a hold-out of 67"),
        (None, {"kind": "regression"}, "target 'plan' holds '.', expected finite numbers for a regression"),
        (None, {"max_levels": 2}, "column 'town' has 3 levels in the training rows, expected at most 2"),
        (None, {"target": "visits"}, "target 'visits': no training sample of class"),
        (spoil("plan", "a"), {}, r"target 'plan': one class only \(a\), expected two or more"),
        (spoil("price", 3.0), {"target": "price"}, "target 'price' is 3.0 in every hold-out row"),
        (spoil("plan", None), {}, "target 'plan' is missing in 200 rows"),
        (spoil("age", np.nan), {}, "column 'age' holds no number in any training row"),
        (spoil("age", np.inf), {}, "column 'age' holds an infinity"),
        (spoil("age", 1j), {}, "column 'age' holds complex128, expected numbers or text"),
        (
            spoil("age", pd.Timestamp("2020-01-01")),
            {},
            "column 'age' holds datetime64.*expected numbers or text",
        ),
        (lambda f: f.assign(age=[[1]] * ROWS), {}, "column 'age' holds object, expected numbers or text"),
        (lambda f: f.assign(age=f["age"] * 1e200), {}, "column 'age' holds numbers too large"),
        (
            lambda f: f.assign(town=pd.Series([None] * ROWS, dtype=object)),
            {},
            "column 'town' holds no text in any training row",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(frame, change, options, message):
    with pytest.raises(ValueError, match=f"^shop: {message}") as refused:
        domain_of(change(frame) if change else frame, where="shop", **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_csv_and_a_parquet_file_are_read_alike(tmp_path, frame, suffix):
    path = tmp_path / f"shop.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    task = table_task(TableOptions(path=str(path), target="plan", holdout_size=50))
    assert np.array_equal(task.holdout()["table"].inputs, domain_of(frame).holdout().inputs)
    assert task.holdout_size == 50
    assert [head.name for head in task.heads] == ["table"]


def test_a_process_reads_a_table_once(tmp_path, frame):
    frame.to_csv(tmp_path / "shop.csv", index=False)
    options = TableOptions(path=str(tmp_path / "shop.csv"), target="plan", holdout_size=50)
    assert table_task(options) is table_task(replace(options))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("shop.csv", None, " is not a file"),
        ("shop.xlsx", b"", "expected a file that ends in .csv or .parquet"),
        ("shop.csv", b"", "No columns to parse from file, expected a .csv table"),
        ("shop.csv", b"a,b\n1,2\n1,2,3\n", "Error tokenizing data.*expected a .csv table"),
        ("shop.csv", b"a,b\n\xff\xfe,2\n", "can't decode.*expected a .csv table"),
        ("shop.parquet", b"PAR", "expected a .parquet table"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_its_name(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^path: .*{name}.*{message}") as refused:
        table_task(TableOptions(path=str(path), target="b"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", ""),
        ("target", None),
        ("target_kind", "ranking"),
        ("ignore", ["age"]),
        ("max_levels", 0),
        ("holdout_size", 0),
        ("seed", True),
    ],
)
def test_an_option_of_a_table_that_is_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        TableOptions(**{"path": "shop.csv", "target": "plan", name: value})
