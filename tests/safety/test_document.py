from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator, Field

from safety import DocumentError, Limits, StrictModel, limits_from_yaml, read_yaml, validate
from safety.document import MAX_SIZE, Document, dotted, parse_yaml, whole_number

GOOD = "bounds:\n  max_params: 10\n  max_flops: 1e15\n  max_memory: 100e9\n"


class Inner(StrictModel):
    size: Annotated[int, BeforeValidator(whole_number), Field(ge=1)]


class Outer(StrictModel):
    name: str = "x"
    on: bool = True
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    count: Annotated[int, Field(ge=2)] = 2
    few: Annotated[int, Field(lt=9)] = 2
    kind: Literal["asha", "fifo"] = "asha"
    pair: Annotated[list[int], Field(min_length=2, max_length=2)] = Field(default=[1, 2])
    scores: dict[str, float] = Field(default={})
    parts: list[Inner] = Field(default=[])
    inner: Inner | str = "file"


def refusal(text, model=Outer):
    with pytest.raises(DocumentError) as caught:
        validate(model, parse_yaml(text, source="f.yaml"))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_numbers_are_read_as_people_write_them():
    text = "a: 1e15\nb: 1e+15\nc: 1.0e15\nd: 10\ne: -3\nf: .5\ng: 010\nh: 100e9\n"
    assert read(text) == {"a": 1e15, "b": 1e15, "c": 1e15, "d": 10, "e": -3, "f": 0.5, "g": 10, "h": 1e11}


def test_words_quotes_and_other_notations_are_text():
    assert read('a: yes\nb: "12"\nc: 0x10\nd: 1_000\ne: 2001-01-01\n') == {
        "a": "yes",
        "b": "12",
        "c": "0x10",
        "d": "1_000",
        "e": "2001-01-01",
    }


def test_constants_and_nothing():
    assert read("a: true\nb: False\nc: null\nd: ~\ne:\n") == {
        "a": True,
        "b": False,
        "c": None,
        "d": None,
        "e": None,
    }
    assert read("") == {}


def read(text):
    return parse_yaml(text, source="f.yaml").data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "f.yaml:2: expected a plain value, found the alias *x"),
        ("a: 1\nb: !!int 5\n", "f.yaml:2: expected a plain value, found the tag tag:yaml.org,2002:int"),
        ("a: !mine {b: 1}\n", "f.yaml:1: expected a plain value, found the tag !mine"),
        (
            "a: !!python/name:os.system ''\n",
            "f.yaml:1: expected a plain value, found the tag tag:yaml.org,2002:python/name:os.system",
        ),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4: b.c: expected once, stands here a second time"),
        ("a: 1\nb: .inf\n", "f.yaml:2: b: expected a finite number, found '.inf'"),
        ("a: [1, -.INF]\n", "f.yaml:1: a[1]: expected a finite number, found '-.INF'"),
        ("a: .NaN\n", "f.yaml:1: a: expected a finite number, found '.NaN'"),
        ("a: 1e999\n", "f.yaml:1: a: expected a finite number, found '1e999'"),
        ("\ufeffa: 1\n", "f.yaml:1: expected plain UTF-8, found a byte order mark"),
        ("a: 1\n? [b]\n: 2\n", "f.yaml:2: expected a plain word as key"),
        ("a: 1\nb: \0\n", "f.yaml:2: not valid YAML: special characters are not allowed"),
    ],
)
def test_what_is_refused_is_told_in_one_line_with_its_place(text, message):
    with pytest.raises(DocumentError) as caught:
        read(text)
    assert str(caught.value) == message


def test_an_integer_of_thousands_of_digits_is_no_finite_number():
    assert refusal(f"count: {'9' * 5000}").startswith("f.yaml:1: count: expected a finite number, found '999")


def test_tabs_are_refused_with_their_line():
    assert refusal("a: 1\nb:\n\tc: 1\n").startswith("f.yaml:3: not valid YAML: ")


def test_two_documents_are_refused():
    assert refusal("a: 1\n---\nb: 2\n").startswith("f.yaml:2: not valid YAML: expected a single document")


def test_an_unclosed_list_is_refused():
    assert refusal("a: [1\n").startswith("f.yaml:2: not valid YAML: ")


@pytest.mark.parametrize("depth", [21, 20_000])
def test_deep_nesting_is_refused_before_anything_is_built(depth):
    assert refusal("a: " + "[" * depth) == "f.yaml:1: expected at most 20 levels of nesting"


def test_twenty_levels_are_read():
    assert read("[" * 20 + "]" * 20)


def test_an_alias_bomb_is_refused_at_its_first_alias():
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    assert refusal(bomb) == "f.yaml:2: expected a plain value, found the alias *a0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nmae: x", "f.yaml:1: nmae: unknown key"),
        ("inner:\n  size: 1\n  sise: 2", "f.yaml:3: inner.sise: unknown key"),
        ("inner: {}", "f.yaml:1: inner.size: missing, and required"),
        ("parts:\n- size: 1\n- size: 0", "f.yaml:3: parts[1].size: expected a number from 1, found 0"),
        ("parts:\n- {}", "f.yaml:2: parts[0].size: missing, and required"),
        ("name: 1.5", "f.yaml:1: name: expected text, found 1.5"),
        ("on: yes", "f.yaml:1: on: expected true or false, found 'yes'"),
        ("rate: fast", "f.yaml:1: rate: expected a number, found 'fast'"),
        ("rate: true", "f.yaml:1: rate: expected a number, found True"),
        ("rate: 0", "f.yaml:1: rate: expected a number over 0.0, found 0"),
        ("rate: 1.1", "f.yaml:1: rate: expected a number up to 1.0, found 1.1"),
        ("count: 1.5", "f.yaml:1: count: expected a whole number, found 1.5"),
        ("count: 1", "f.yaml:1: count: expected a number from 2, found 1"),
        ("few: 9", "f.yaml:1: few: expected a number under 9, found 9"),
        ("kind: hyperband", "f.yaml:1: kind: expected 'asha' or 'fifo', found 'hyperband'"),
        ("pair: [1]", "f.yaml:1: pair: expected at least 2 items, found [1]"),
        ("pair: [1, 2, 3]", "f.yaml:1: pair: expected at most 2 items, found [1, 2, 3]"),
        ("pair: 1", "f.yaml:1: pair: expected a list, found 1"),
        ("scores: [1]", "f.yaml:1: scores: expected a mapping, found [1]"),
        ("scores:\n  a: 1\n  b: x", "f.yaml:3: scores.b: expected a number, found 'x'"),
        ("inner: 5", "f.yaml:1: inner: expected a mapping or text, found 5"),
        ('"a\\nb": 1', "f.yaml:1: 'a\\nb': unknown key"),
        ("- 1", "f.yaml:1: expected a mapping, found [1]"),
        ("text", "f.yaml:1: expected a mapping, found 'text'"),
    ],
)
def test_what_does_not_fit_is_told_with_line_field_and_what_was_expected(text, message):
    assert refusal(text) == message


def test_a_kind_of_error_without_words_of_our_own_is_still_one_line():
    class Dated(StrictModel):
        at: Annotated[str, Field(pattern="^a$")] = "a"

    assert refusal("at: b", Dated) == "f.yaml:1: at: String should match pattern '^a$', found 'b'"


@pytest.mark.parametrize(
    "value", ["-1", "0", "1e300", str(2**63), str(2**62 + 1), "true", '"12"', "1.5", "[1]", ""]
)
def test_sizes_that_are_no_sizes_are_refused_with_file_line_and_field(value):
    message = refusal(GOOD.replace("max_params: 10", f"max_params: {value}"), Limits)
    assert message.startswith("f.yaml:2: bounds.max_params: expected a ")
    assert ", found " in message


def test_a_long_value_is_shortened():
    assert len(refusal(f"rate: {'x' * 1000}")) < 120
    assert len(refusal(f"{'x' * 1000}: 1")) < 120


@given(st.integers())
def test_a_whole_number_is_what_it_was_or_refused(value):
    if 0 <= value <= MAX_SIZE:
        assert whole_number(value) == value
    else:
        with pytest.raises(ValueError, match="expected a whole number"):
            whole_number(value)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_a_float_counts_where_it_is_exactly_whole(value):
    if 0 <= value <= MAX_SIZE and value == int(value):
        assert whole_number(value) == value
        assert type(whole_number(value)) is int
    else:
        with pytest.raises(ValueError, match="expected a whole number"):
            whole_number(value)


@pytest.mark.parametrize("value", [True, False, "12", None, [1]])
def test_what_is_no_number_is_no_whole_number(value):
    with pytest.raises(ValueError, match="expected a whole number"):
        whole_number(value)


def outcome(call):
    try:
        call()
    except DocumentError as error:
        return str(error)
    return "f.yaml: accepted"


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_one_line(text):
    told = outcome(lambda: validate(Outer, parse_yaml(text, source="f.yaml")))
    assert len(told.splitlines()) == 1
    assert told.startswith("f.yaml:")


@given(
    st.dictionaries(
        st.sampled_from(["name", "rate", "inner", "parts"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    )
)
def test_any_mapping_is_accepted_or_refused_in_one_line(data):
    assert len(outcome(lambda: validate(Outer, Document(source="d", data=data))).splitlines()) == 1


# --- files


def written(tmp_path, data):
    path = tmp_path / "f.yaml"
    path.write_bytes(data)
    return path


def test_a_file_is_read(tmp_path):
    assert limits_from_yaml(written(tmp_path, GOOD.encode())).bounds.max_flops == 10**15


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DocumentError, match=r"gone\.yaml.*cannot be read: No such file"):
        read_yaml(tmp_path / "gone.yaml")


def test_a_folder_is_told(tmp_path):
    with pytest.raises(DocumentError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


def test_a_path_with_a_nul_is_told():
    with pytest.raises(DocumentError, match=r"x\\x00y.*cannot be read"):
        read_yaml(Path("x\0y"))


def test_a_file_over_a_megabyte_is_not_read(tmp_path):
    path = tmp_path / "f.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(DocumentError, match="expected a file of at most 1,000,000 bytes"):
        read_yaml(path)


def test_what_is_no_utf8_is_told(tmp_path):
    with pytest.raises(DocumentError, match=r"expected UTF-8 text \(invalid start byte at byte 3\)"):
        read_yaml(written(tmp_path, b"a: \xff\n"))


def test_a_byte_order_mark_is_told(tmp_path):
    with pytest.raises(DocumentError, match=r"f\.yaml:1: expected plain UTF-8"):
        read_yaml(written(tmp_path, b"\xef\xbb\xbfa: 1\n"))


# --- parts of documents


def test_a_part_keeps_its_lines_and_its_full_names():
    document = parse_yaml("x: 1\nlimits:\n  inner:\n    size: 0\n", source="f.yaml").part("limits")
    with pytest.raises(DocumentError) as caught:
        validate(Outer, document)
    assert str(caught.value) == "f.yaml:4: limits.inner.size: expected a number from 1, found 0"


def test_a_part_that_is_not_there_or_below_no_mapping_is_told():
    document = parse_yaml("x: 1\nlimits:\n  inner: 2\n", source="f.yaml")
    with pytest.raises(DocumentError, match=r"f\.yaml:2: limits\.outer: missing, and required"):
        document.part("limits", "outer")
    with pytest.raises(DocumentError, match=r"f\.yaml:3: limits\.inner: expected a mapping, found 2"):
        document.part("limits", "inner", "size")


def test_a_part_that_is_no_mapping_is_refused_by_its_name():
    with pytest.raises(DocumentError, match=r"f\.yaml:1: limits: expected a mapping, found 3"):
        validate(Outer, parse_yaml("limits: 3", source="f.yaml").part("limits"))


def test_fields_are_named_as_people_write_them():
    assert dotted(("heads", 0, "name")) == "heads[0].name"
    assert Document(source="d", data={}).where(("a",)) == "d"
