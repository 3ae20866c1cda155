"""The line between a trial's process and its workers, in one process."""

import socket
import threading
from multiprocessing.connection import Client

import pytest

from rsi_ray.crew_line import DEAF_SECONDS, Orders, accept

SECRET = b"secret"


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


@pytest.fixture
def connected(server):
    """Both ends, and what says that the worker's end was lost."""
    lost, clock, made = threading.Event(), Clock(), []
    joining = threading.Thread(
        target=lambda: made.append(Orders(server.getsockname(), SECRET, lost.set, clock))
    )
    joining.start()
    line = accept(server, SECRET)
    joining.join()
    yield line, made[0], lost, clock
    line.close()
    made[0].end()


def test_orders_and_answers_come_in_order(connected):
    line, orders, _, _ = connected
    line.tell(order="one")
    line.pulse()
    line.tell(order="two", more=[1.5])
    assert orders.next() == {"order": "one"}
    assert orders.next() == {"order": "two", "more": [1.5]}
    orders.answer(score=float("inf"))
    assert line.message_or_chunk() == {"score": float("inf")}


def test_files_go_both_ways(connected, tmp_path, monkeypatch):
    monkeypatch.setattr("rsi_ray.crew_line.CHUNK_BYTES", 3)
    line, orders, _, _ = connected
    (tmp_path / "sent").write_bytes(b"0123456789")
    line.tell(order="restore")
    line.send_file(tmp_path / "sent")
    line.tell(order="next")
    assert orders.next()["order"] == "restore"
    orders.receive_file(tmp_path / "found")
    assert (tmp_path / "found").read_bytes() == b"0123456789"
    assert orders.next()["order"] == "next"
    with orders.sending_file() as file:
        file.write(b"012")
        file.write(memoryview(b"3456789"))
    assert [line.message_or_chunk() for _ in range(5)] == [b"012", b"345", b"678", b"9", b""]


def test_a_worker_counts_as_led_only_shortly_after_it_heard_something(connected):
    line, orders, _, clock = connected
    clock.now += DEAF_SECONDS
    assert not orders.is_led()
    line.pulse()
    line.tell(order="heard")
    orders.next()
    assert orders.is_led()


def test_a_worker_whose_line_ends_hears_of_it_at_once(connected):
    line, _, lost, _ = connected
    line.close()
    assert lost.wait(5)


def test_a_worker_that_hangs_up_as_ordered_is_not_lost(connected):
    line, orders, lost, _ = connected
    orders.end()
    with pytest.raises((EOFError, OSError)):
        line.message_or_chunk()
    assert not lost.wait(0.2)


def test_who_does_not_know_the_secret_is_not_let_in(server):
    def intrude():
        with pytest.raises(Exception, match=r"digest|closed|reset"):
            Client(server.getsockname(), authkey=b"wrong")

    intruder = threading.Thread(target=intrude)
    intruder.start()
    assert accept(server, SECRET) is None
    intruder.join()


def test_nobody_is_waited_for_longer_than_the_server_says(server):
    server.settimeout(0.01)
    assert accept(server, SECRET) is None
