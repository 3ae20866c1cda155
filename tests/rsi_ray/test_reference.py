"""The reference of the YAML file is complete and current."""

import re
from pathlib import Path

import pytest

from rsi_ray.example_files import example_file, examples
from rsi_ray.reference import TOP, reference, sections
from safety import read_yaml

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
FIELDS = [(model, name, field) for model in sections() for name, field in model.model_fields.items()]


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `make reference`"


@pytest.mark.parametrize(
    ("model", "name", "field"), FIELDS, ids=lambda value: getattr(value, "__name__", None)
)
def test_every_field_has_a_description(model, name, field) -> None:
    assert field.description, f"{model.__name__}.{name}"


def test_every_row_says_what_is_expected() -> None:
    rows = re.findall(r"^\| `.*\|$", reference(), flags=re.MULTILINE)
    assert len(rows) == len(FIELDS)
    for row in rows:
        assert all(cell.strip() for cell in row.strip("|").split("|")), row


@pytest.mark.parametrize("name", examples())
def test_every_key_of_an_example_stands_in_its_section(name) -> None:
    tables = _keys_by_section()
    data = read_yaml(Path(str(example_file(name)))).data
    assert isinstance(data, dict)
    for place, key in _keys(data, ""):
        assert key in tables[place], f"{place}: {key}"


def test_every_parameter_of_the_built_in_baseline_is_named() -> None:
    data = read_yaml(Path(str(example_file("built_in")))).data
    assert isinstance(data, dict)
    for name in data["baseline"]:
        assert f"`{name}`" in reference()


def test_every_link_leads_to_a_heading() -> None:
    page = reference()
    headings = re.findall(r"^## (.*)$", page, flags=re.MULTILINE)
    anchors = {re.sub(r"[.:]", "", heading).replace(" ", "-").lower() for heading in headings}
    assert set(re.findall(r"\(#([^)]*)\)", page)) <= anchors


def _keys(data: dict, place: str):
    for key, value in data.items():
        yield place, key
        # names below these two are the user's, not keys
        if isinstance(value, dict) and key not in ("baseline", "max_performance"):
            yield from _keys(value, f"{place}.{key}".strip("."))


def _keys_by_section() -> dict[str, set[str]]:
    tables: dict[str, set[str]] = {}
    for section in reference().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        keys = set(re.findall(r"^\| `([a-z_]+)`", text, flags=re.MULTILINE))
        for place in title.split(" and "):
            part = place.split(" of kind ")[0]
            tables.setdefault("" if part == TOP else part, set()).update(keys)
    return tables
