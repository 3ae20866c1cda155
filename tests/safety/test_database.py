"""What a database is told before it holds a ledger; that real ones obey is in the contract suites."""

import pytest
import sqlalchemy as sa

from safety import database
from safety.errors import LedgerUrlError

SERVER = "postgresql+psycopg://me:secret@host/safety"


class FakeServer:
    """A connection of PostgreSQL's driver, or of SQLAlchemy: it remembers what it is told."""

    def __init__(self, **options):
        self.told, self._options = [], options

    def cursor(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.told.append("closed")

    def execute(self, statement):
        self.told.append(statement)

    exec_driver_sql = execute

    def commit(self):
        self.told.append("commit")

    def get_execution_options(self):
        return self._options


def test_a_connection_to_postgresql_waits_as_long_commits_for_good_and_sees_what_was_committed_meanwhile():
    server = FakeServer()
    configure, *_ = database._SETTINGS["postgresql"]
    configure(server, None)
    assert server.told == [
        f"SET lock_timeout = {database.BUSY_TIMEOUT_MS}",
        "SET synchronous_commit = on",
        "SET default_transaction_isolation = 'read committed'",
        "closed",
        "commit",
    ]


@pytest.mark.parametrize(
    ("name", "reads", "told"),
    [
        ("postgresql", False, [f"SELECT pg_advisory_xact_lock({database.LOCK})"]),
        ("postgresql", True, []),
        ("sqlite", False, ["BEGIN IMMEDIATE"]),
        ("sqlite", True, ["BEGIN"]),
    ],
)
def test_a_transaction_that_may_write_waits_for_the_one_before_it_and_one_that_reads_for_nobody(
    name, reads, told
):
    connection = FakeServer(reads=reads)
    _, begin, _ = database._SETTINGS[name]
    begin(connection)
    assert connection.told == told


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (SERVER, "postgresql+psycopg://me:***@host/safety"),
        ("no url", "no url"),
        ("me:secret@host", "(a URL that can't be parsed)"),
        ("postgresql://me:se@cr:et@host/safety", "(a URL that can't be parsed)"),
        ("passwd=secret", "(a URL that can't be parsed)"),
        ("postgresql://host/s?user=me&password=secret", "postgresql://host/s?password=hidden&user=me"),
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert database.without_password(url) == shown


def test_a_governors_state_lies_beside_a_file_and_elsewhere_for_a_server(tmp_path):
    assert database.state_folder(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "other") == tmp_path
    for url in (SERVER, "sqlite://"):
        assert database.state_folder(url, tmp_path / "other") == tmp_path / "other"


@pytest.mark.parametrize("url", ["garbage", "postgresql://me:se@cr:et@host/safety"])
def test_what_is_no_url_of_a_database_is_told_in_a_line_without_what_may_be_a_password(url):
    for read in (database.parsed_url, database.open_database, database.file_of, database.database_name):
        with pytest.raises(LedgerUrlError, match=r"not a database URL; expected sqlite:///PATH or") as told:
            read(url)
        assert "cr" not in str(told.value).partition(";")[0]


def test_a_ledger_that_could_be_opened_has_no_problem_and_nothing_is_made(tmp_path):
    assert database.problem_of(f"sqlite:///{tmp_path}/new/ledger.db") == ""
    assert database.problem_of("sqlite://") == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("garbage", "not a database URL"),
        ("sqlite:////proc/nowhere/ledger.db", "can't be written"),
        ("postgresql+psycopg://me:secret@127.0.0.1:9/safety", "cannot be opened: "),
        ("unknown://me:secret@127.0.0.1/safety", "cannot be opened: "),
    ],
)
def test_why_no_ledger_could_be_opened_is_told_without_a_password(url, told, monkeypatch):
    monkeypatch.setattr("safety.database.os.access", lambda path, how: str(path) != "/proc")  # root may
    problem = database.problem_of(url)
    assert told in problem
    assert "\n" not in problem
    assert "secret" not in problem


def test_a_ledger_on_a_networks_disk_could_not_be_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("safety.database.network_under", lambda file: "nfs4")
    assert "lies on nfs4, where locks don't hold" in database.problem_of(f"sqlite:///{tmp_path}/ledger.db")


def test_a_reader_of_postgresql_sees_one_state():
    reader = database.for_reading(sa.create_engine(SERVER))
    assert reader.get_execution_options()["isolation_level"] == "REPEATABLE READ"
