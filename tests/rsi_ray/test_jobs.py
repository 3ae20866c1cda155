"""What is told of a job's log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from ray.job_submission import JobInfo, JobStatus

from rsi_ray.errors import RunError
from rsi_ray.jobs import AWAY_SECONDS, Jobs, Once
from safety.errors import ClusterUnreachable


def test_a_log_that_is_read_from_its_beginning_again_is_told_once():
    told: list[str] = []
    log = Once(told.append)
    for chunks in (["one ", "two "], ["one two th", "ree "], ["one two three four"], ["one"]):
        log.begin()
        for chunk in chunks:
            log.take(chunk)
    assert "".join(told) == "one two three four"


class Server:
    """An API server whose connections break, each after a part of the log; the last one ends well."""

    def __init__(self, connections: list[list[str]], *, silent: bool = False) -> None:
        self.connections, self.silent = connections, silent
        self.now = 0.0

    def get_job_info(self, id: str) -> JobInfo:
        over = not self.connections and not self.silent
        return JobInfo(status=JobStatus.SUCCEEDED if over else JobStatus.RUNNING, entrypoint="run")

    async def tail_job_logs(self, id: str) -> AsyncIterator[str]:
        if not self.connections:
            raise RuntimeError("WebSocket connection closed unexpectedly")
        if self.connections[0] == ["silence"]:
            self.connections.pop(0)
            await asyncio.sleep(3600)
        for chunk in self.connections.pop(0):
            self.now += 2 * AWAY_SECONDS  # a job's whole life goes by
            yield chunk
        if self.connections or self.silent:
            raise RuntimeError("WebSocket connection closed unexpectedly")


def followed(server: Server) -> str:
    told: list[str] = []
    jobs = Jobs.__new__(Jobs)
    jobs._client = server  # type: ignore[assignment]

    def sleep(seconds: float) -> None:
        server.now += seconds

    jobs.follow("some", told.append, lambda: server.now, sleep)
    return "".join(told)


def test_a_log_is_followed_over_broken_connections_however_long_it_lasts():
    server = Server([["one "], ["one ", "two "], ["one ", "two ", "three"]])
    assert followed(server) == "one two three"


def test_a_cluster_that_stays_away_is_given_up_and_the_job_may_go_on():
    server = Server([["one "]], silent=True)
    with pytest.raises(ClusterUnreachable, match=r"nothing is heard of it for 60 s .* it may go on"):
        followed(server)
    assert server.now >= 3 * AWAY_SECONDS


def test_a_connection_over_which_nothing_comes_is_given_up_for_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rsi_ray.jobs.SILENT_SECONDS", 0.05)
    server = Server([["one "], ["silence"], ["one ", "two"]])
    assert followed(server) == "one two"


def test_a_job_that_ended_while_its_connection_was_silent_is_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rsi_ray.jobs.SILENT_SECONDS", 0.05)
    assert followed(Server([["silence"]])) == ""


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8265", "ftp://host", "http://", "http://:8265", "http://host:99999999"]
)
def test_what_is_no_url_of_a_dashboard_is_refused_at_once(address: str):
    with pytest.raises(RunError, match="expected the URL of a dashboard, as http://127"):
        Jobs(address)


class Stranger:
    """A server that answers what no cluster does."""

    def get_job_info(self, id: str) -> JobInfo:
        raise KeyError("ray_version")


def test_an_answer_that_is_no_clusters_is_told_in_a_line():
    jobs = Jobs.__new__(Jobs)
    jobs._client = Stranger()  # type: ignore[assignment]
    with pytest.raises(RunError, match=r"^job some: .*ray_version"):
        jobs.job("some")


class Stopping:
    """A server that answers every second question, and says at the fourth that the job has ended."""

    def __init__(self) -> None:
        self.asked = 0

    def stop_job(self, id: str) -> bool:
        return True

    def get_job_info(self, id: str) -> JobInfo:
        self.asked += 1
        if self.asked % 2:
            raise RuntimeError("Request failed with status code 500")
        state = JobStatus.STOPPED if self.asked == 4 else JobStatus.RUNNING
        return JobInfo(status=state, entrypoint="run")


def test_a_job_that_is_stopped_is_waited_for_over_a_server_that_is_away_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("rsi_ray.jobs.POLL_SECONDS", 0.0)
    jobs = Jobs.__new__(Jobs)
    jobs._client = Stopping()  # type: ignore[assignment]
    assert jobs.stop("some").state == "STOPPED"


def test_a_job_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rsi_ray.jobs.POLL_SECONDS", 0.0)
    monkeypatch.setattr("rsi_ray.jobs.STOP_SECONDS", -AWAY_SECONDS)
    jobs = Jobs.__new__(Jobs)
    jobs._client = Stopping()  # type: ignore[assignment]
    with pytest.raises(RunError, match="it is asked to end, and isn't known to have"):
        jobs.stop("some")
