"""Ray's metrics, by objects that keep what they are told."""

import threading

import pytest

from safety.exporter import EVERY_SECONDS, PATIENCE, Exporter
from safety.metrics import Metric, Sample

METRICS = {
    "height": Metric(text="how high", labels=("of",)),
    "births": Metric(text="how many", labels=("of",), kind="counter"),
}


class Kept:
    """A metric that keeps what it is told."""

    def __init__(self, name, description, tag_keys):
        self.made, self.told = (name, description, tag_keys), []

    def set(self, value, tags):
        self.told.append((value, tags))

    inc = set


class World:
    """What is read, how long that takes, and what was told."""

    def __init__(self):
        self.now, self.takes, self.reads, self.samples = 100.0, 0.0, 0, []
        self.fails = None
        self.made = {}
        kinds = {"gauge": self._kept, "counter": self._kept}
        self.exporter = Exporter(METRICS, self.read, clock=lambda: self.now, kinds=kinds)

    def _kept(self, name, **options):
        return self.made.setdefault(name, Kept(name, options["description"], options["tag_keys"]))

    def read(self):
        self.reads += 1
        self.now += self.takes
        if self.fails:
            raise self.fails
        return self.samples

    def told(self, name):
        return self.made[name].told


@pytest.fixture
def world():
    return World()


def sample(name, value, of="oak"):
    return Sample(name=name, value=value, labels={"of": of})


def test_a_gauge_is_set_by_its_labels(world):
    world.samples = [sample("height", 7.5), sample("height", 8.0, "elm")]
    world.exporter.tell()
    assert world.told("height") == [(7.5, {"of": "oak"}), (8.0, {"of": "elm"})]
    assert world.made["height"].made == ("height", "how high", ("of",))


def test_a_counter_is_raised_by_what_is_new(world):
    for total in (5, 5, 12):
        world.samples = [sample("births", total), sample("births", 1, "elm")]
        world.exporter.tell()
        world.now += EVERY_SECONDS
    assert world.told("births") == [(5, {"of": "oak"}), (1, {"of": "elm"}), (7, {"of": "oak"})]


def test_it_reads_again_only_after_a_while(world):
    world.exporter.tell()
    world.now += EVERY_SECONDS - 0.1
    world.exporter.tell()
    assert world.reads == 1
    world.now += 0.1
    world.exporter.tell()
    assert world.reads == 2


def test_a_reading_that_takes_long_is_waited_for_many_times_as_long(world):
    world.takes = 2.0
    world.exporter.tell()
    world.now = 100.0 + 2.0 * PATIENCE - 0.1
    world.exporter.tell()
    assert world.reads == 1
    world.now += 0.1
    world.exporter.tell()
    assert world.reads == 2


@pytest.mark.parametrize("broken", ["reading", "telling"])
def test_a_failure_is_logged_once_and_goes_no_further(world, broken, caplog):
    if broken == "reading":
        world.fails = ValueError("no such luck")
    else:
        world.samples = [sample("unknown", 1)]
    for _ in range(3):
        world.exporter.tell()
        world.now += EVERY_SECONDS
    assert world.reads == 3
    assert len(caplog.records) == 1
    assert caplog.text.count("metrics are not told") == 1
    world.fails, world.samples = None, [sample("height", 7.5)]
    world.exporter.tell()
    assert world.told("height") == [(7.5, {"of": "oak"})]


def test_a_thread_tells_until_it_is_over(world, monkeypatch):
    over = threading.Event()
    world.read_once = world.exporter._read
    world.exporter._read = lambda: over.set() or world.read_once()
    thread = threading.Thread(target=world.exporter.keep_telling, args=(over,), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert world.reads == 1
