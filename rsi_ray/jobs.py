"""Ray shell: jobs on a cluster, by its API server."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobInfo, JobStatus, JobSubmissionClient

from rsi_ray.errors import RunError
from rsi_ray.printable import one_line
from safety.environment import environment
from safety.errors import ClusterUnreachable
from safety.http_url import http_url

# an API server that doesn't answer for so long is given up
AWAY_SECONDS = 60.0
# a connection over which nothing came for so long may be gone without a word: another one is made
SILENT_SECONDS = 60.0
POLL_SECONDS = 0.5
# a driver that is stopped ends its sweep: Ray's own 3 s would leave leases to be reaped
STOP_SECONDS = 60
NAMED_BY = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a cluster says of a job.

    Attributes:
        id: its submission's.
        state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        told: in words.
        started_ms, ended_ms: since 1970; None where it hasn't.
        exit_code: its driver's; None where that hasn't ended by itself.
        metadata: what it was submitted with.
    """

    id: str
    state: str
    told: str
    started_ms: int | None
    ended_ms: int | None
    exit_code: int | None
    metadata: Mapping[str, str]

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return JobStatus(self.state).is_terminal()


class Jobs:
    """A cluster's jobs.

    Args:
        address: URL of the API server, the dashboard's; None for the one that the environment names, or the
            one here.

    Raises:
        RunError: it isn't an address of one.
        ClusterUnreachable: nothing answers there, or nobody is let in.
    """

    def __init__(self, address: str | None) -> None:
        address = None if address is None or address == "auto" else _dashboard(address)
        # they tell of packages that are packed and sockets that are closed
        for talker in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(talker).setLevel(logging.WARNING)
        # Ray lets the environment overrule what it is told
        named = dict.fromkeys(NAMED_BY, address) if address else {}
        try:
            with environment(named):
                self._client = JobSubmissionClient(address)
        except (RayError, RuntimeError, OSError, ValueError, KeyError, AssertionError) as error:
            raise ClusterUnreachable(f"cluster {address or 'here'}: {one_line(error)}") from None

    def submit(
        self, entrypoint: str, *, id: str, folder: Path, modules: Sequence[Path], metadata: dict[str, str]
    ) -> str:
        """Ship a folder to run in, and packages to import from anywhere, and start a job; gives its id.

        Raises:
            RunError: it isn't taken.
        """
        shipped: dict[str, Any] = {
            "working_dir": str(folder),
            "py_modules": [str(module) for module in modules],
            "env_vars": {
                "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
                "COLUMNS": str(shutil.get_terminal_size().columns),
            },
        }
        with _one_line("the job was not taken"):
            return self._client.submit_job(
                entrypoint=entrypoint, submission_id=id, runtime_env=shipped, metadata=metadata
            )

    def job(self, id: str) -> Job:
        """What is known of a job.

        Raises:
            RunError: it isn't known.
        """
        with _one_line(f"job {id}"):
            return _job(id, self._client.get_job_info(id))

    def stop(self, id: str) -> Job:
        """Ask a job's driver to end, wait until it has, and tell how.

        Raises:
            RunError: it isn't known, or doesn't end.
        """
        with _one_line(f"job {id}"):
            self._client.stop_job(id)
        until = time.monotonic() + STOP_SECONDS + AWAY_SECONDS
        while time.monotonic() < until:
            with suppress(RunError):  # the way there may be away for a moment
                job = self.job(id)
                if job.is_over:
                    return job
            time.sleep(POLL_SECONDS)
        raise RunError(f"job {id}: it is asked to end, and isn't known to have; see `rsi-ray logs {id}`")

    def log(self, id: str) -> str:
        """All that it has printed.

        Raises:
            RunError: it isn't known.
        """
        with _one_line(f"job {id}"):
            return self._client.get_job_logs(id)

    def follow(
        self,
        id: str,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Job:
        """Tell what a job prints, from its beginning, until it has ended; goes on over broken connections.

        Raises:
            RunError: it isn't known.
            ClusterUnreachable: the API server is away for too long.
        """
        self.job(id)
        log, until = Once(tell), math.inf
        while True:
            before = log.told
            try:
                with suppress(asyncio.TimeoutError):  # a job may have nothing to say
                    asyncio.run(self._tail(id, log))
                job = self.job(id)
                if job.is_over:
                    return job
                until = math.inf
            except (RunError, RayError, RuntimeError, OSError, aiohttp.ClientError) as error:
                if until == math.inf or log.told > before:
                    until = clock() + AWAY_SECONDS
                if clock() >= until:
                    raise ClusterUnreachable(
                        f"job {id}: nothing is heard of it for {AWAY_SECONDS:g} s ({one_line(error)}); "
                        f"it may go on, and `rsi-ray logs {id} --follow` shows it again"
                    ) from None
            sleep(POLL_SECONDS)

    async def _tail(self, id: str, log: Once) -> None:
        log.begin()
        chunks = self._client.tail_job_logs(id)
        with suppress(StopAsyncIteration):
            while True:
                log.take(await asyncio.wait_for(anext(chunks), SILENT_SECONDS))


class Once:
    """Tells a text, each part once, however often it is read from its beginning.

    Args:
        tell: is called with what is new.

    Attributes:
        told: characters that were told.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._seen = self.told = 0

    def begin(self) -> None:
        """It is read from its beginning."""
        self._seen = 0

    def take(self, chunk: str) -> None:
        """What comes next in it."""
        new = chunk[max(0, self.told - self._seen) :]
        self._seen += len(chunk)
        self.told = max(self.told, self._seen)
        if new:
            self._tell(new)


def _dashboard(address: str) -> str:
    try:
        return http_url(address)
    except ValueError:
        raise RunError(
            f"address {address}: expected the URL of a dashboard, as http://127.0.0.1:8265"
        ) from None


def _job(id: str, told: JobInfo | JobDetails) -> Job:
    return Job(
        id=id,
        state=str(told.status),
        told=(told.message or "").strip(),
        started_ms=told.start_time,
        ended_ms=told.end_time,
        exit_code=told.driver_exit_code,
        metadata=told.metadata or {},
    )


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """What the API server, or the way there, objects to."""
    try:
        yield
    except (RayError, RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        said = one_line(error).removeprefix("Request failed with status code 404: ")
        raise RunError(f"{what}: {said}") from None
