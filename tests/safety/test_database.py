"""What a database is told before it holds a ledger; that real ones obey is in the contract suites."""

import pytest
import sqlalchemy as sa

from safety import database

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
    ],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert database.without_password(url) == shown


def test_a_governors_state_lies_beside_a_file_and_elsewhere_for_a_server(tmp_path):
    assert database.state_folder(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "other") == tmp_path
    for url in (SERVER, "sqlite://"):
        assert database.state_folder(url, tmp_path / "other") == tmp_path / "other"


def test_a_reader_of_postgresql_sees_one_state():
    reader = database.for_reading(sa.create_engine(SERVER))
    assert reader.get_execution_options()["isolation_level"] == "REPEATABLE READ"
