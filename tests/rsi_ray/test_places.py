"""Where a run's files may lie."""

import pytest

from rsi_ray.places import problems_of_places


@pytest.mark.parametrize(
    ("storage", "artifacts", "ledger", "told"),
    [
        (
            "s3://bucket/x",
            None,
            None,
            "storage: s3://bucket/x, expected a folder",
        ),
        ("runs", "foo://x/y", None, "artifacts: foo://x/y: expected a URI of"),
        ("runs", None, "sqlite:///s3://bucket/ledger.db", "an object store has no locks"),
        ("runs", None, "s3://KEY:SECRET@bucket/ledger.db", "ledger: s3://bucket/ledger.db: an object store"),
        ("runs", None, "garbage", "ledger garbage: not a database URL; expected sqlite:///PATH"),
        ("runs", None, "postgresql://u:SE@CR:ET@h/db", "not a database URL; expected sqlite:///PATH"),
        ("/mnt/runs", "file:///mnt/runs", None, "lie in one another"),
        ("/mnt/runs", "file:///mnt/runs/store", None, "lie in one another"),
        ("/mnt/runs", "file:///mnt", None, "lie in one another"),
        ("/mnt/runs", "file:///share", "sqlite:////share/ledger.db", "ledger: /share/ledger.db lies in the"),
    ],
)
def test_a_place_that_would_lose_files_is_refused_in_one_line(storage, artifacts, ledger, told):
    problems = list(problems_of_places(storage, artifacts, ledger))
    assert len(problems) == 1
    assert told in problems[0]
    assert "SECRET" not in problems[0]


def test_a_storage_here_a_bucket_and_a_ledger_on_a_disk_are_taken():
    assert not list(problems_of_places("~/runs", "s3://bucket/x", "sqlite:////mnt/ledger.db"))
    assert not list(problems_of_places("runs", None, None))
    assert not list(problems_of_places("runs", "gs://bucket", "postgresql+psycopg://host/db"))
