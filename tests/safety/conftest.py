import itertools
import shutil

import pytest

from safety import Governor, Ledger
from tests import postgresql
from tests.safety.fakes import FakeClock, limits

DATABASES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql))
# the suites that every database of a ledger has to pass
CONTRACTS = (
    "ancestors",
    "approvals",
    "audit",
    "drills",
    "emergencies",
    "governor",
    "group_commit",
    "latch",
    "ledger",
    "observed",
    "races",
    "readmit",
)

_schemas = itertools.count(1)


def pytest_generate_tests(metafunc):
    own = [str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")]
    if "url" in metafunc.fixturenames and not any("url" in names for names in own):
        suite = metafunc.module.__name__.rpartition("test_")[2]
        only = metafunc.definition.get_closest_marker("sqlite")
        databases = DATABASES if suite in CONTRACTS and not only else ("sqlite",)
        metafunc.parametrize("url", databases, indirect=True)


@pytest.fixture(scope="session")
def postgresql_server():
    """A server of the tests' own."""
    with postgresql.server() as url:
        yield url


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def url(request, tmp_path):
    """URL of a database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server = request.getfixturevalue("postgresql_server")
    return postgresql.new_schema(server, f"ledger_{next(_schemas)}")


def with_a_sweep(url):
    """A ledger with one open sweep `s` and room for ten claims."""
    opened = Ledger(url, FakeClock().clock())
    opened.open_sweep("s", limits(cluster={"trials": 10, "train_flops": 100 * 10**9}))
    opened.close()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """The file of such a ledger: a copy takes less time than another one."""
    path = tmp_path_factory.mktemp("made_once") / "ledger.db"
    with_a_sweep(f"sqlite:///{path}")
    return path


@pytest.fixture
def ledger(url, clock, made_once):
    """A ledger in a real database, with one open sweep `s` and room for ten claims."""
    if url.startswith("sqlite:///"):
        shutil.copy(made_once, url.removeprefix("sqlite:///"))
    else:
        with_a_sweep(url)
    opened = Ledger(url, clock.clock())
    yield opened
    opened.close()


@pytest.fixture
def governor(ledger):
    return Governor(ledger)
