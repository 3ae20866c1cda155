"""What is told of a job's log."""

from __future__ import annotations

from rsi_ray.jobs import Once


def test_a_log_that_is_read_from_its_beginning_again_is_told_once():
    told: list[str] = []
    log = Once(told.append)
    for chunks in (["one ", "two "], ["one two th", "ree "], ["one two three four"], ["one"]):
        log.begin()
        for chunk in chunks:
            log.take(chunk)
    assert "".join(told) == "one two three four"
