import pytest

from safety import Governor, Ledger
from tests.safety.fakes import FakeClock, limits


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(url, clock):
    """A ledger in a real SQLite file, with one open sweep `s` and room for ten claims."""
    opened = Ledger(url, clock.clock())
    opened.open_sweep("s", limits(cluster={"trials": 10, "train_flops": 100 * 10**9}))
    yield opened
    opened.close()


@pytest.fixture
def governor(ledger):
    return Governor(ledger)
