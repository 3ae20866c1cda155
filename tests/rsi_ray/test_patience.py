"""What is written where a storage is away for a while."""

import pytest

from rsi_ray.patience import AWAY_SECONDS, while_away


class Away:
    """A storage that answers after so many failures."""

    def __init__(self, failures):
        self.failures, self.now = failures, 0.0

    def __call__(self):
        self.failures -= 1
        if self.failures >= 0:
            raise OSError(5, "Input/output error")
        return "done"

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_a_storage_that_is_away_for_a_minute_is_waited_for_and_told_of_once(caplog):
    away = Away(9)
    assert while_away(away, "study.log", clock=away.clock, sleep=away.sleep) == "done"
    # 0.5 + 1 + 2 + 4 + 8, and then every ten seconds
    assert away.now == 15.5 + 4 * 10
    assert [record.getMessage() for record in caplog.records] == [
        "study.log: its storage is away, waiting for it: [Errno 5] Input/output error",
        "study.log: its storage is back after 56 s",
    ]


def test_a_storage_that_stays_away_is_a_fault():
    away = Away(10**6)
    with pytest.raises(OSError, match="Input/output"):
        while_away(away, "study.log", clock=away.clock, sleep=away.sleep)
    assert away.now == AWAY_SECONDS


def test_what_is_no_storages_fault_is_not_tried_again(caplog):
    with pytest.raises(ZeroDivisionError):
        while_away(lambda: 1 // 0, "study.log")
    assert caplog.records == []
