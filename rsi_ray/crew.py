"""A candidate that several processes train together, as its trial's process has it: one run, many workers."""

from __future__ import annotations

import importlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from rsi_ray.crew_line import PULSE_SECONDS, Line, accept
from rsi_ray.errors import TrainingError, WorkerLost
from rsi_ray.placement import Placement
from rsi_ray.scoring import Scored
from rsi_ray.training_job import TrainingJob
from safety import Grant
from safety.governor import Authority

# between two looks at whether the workers still start
LOOK_SECONDS = 0.2
# for a worker's death to be seen after another one has told of a failure
DEATH_SECONDS = 2.0
# for workers to hang up when they are told to end
END_SECONDS = 5.0
# for what started them to clear up
GONE_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What every worker of a candidate is told; sent to its process.

    Attributes:
        job: what a candidate does.
        config: the candidate's configuration.
        authority: the governor.
        grant: the lease, which the trial's process holds.
        placement: workers, and what each has.
        sweep, trial: that it belongs to.
        address: host and port of the trial's process; it is known once that listens.
        secret: by which the two know each other.
    """

    job: TrainingJob
    config: Mapping[str, Any]
    authority: Authority
    grant: Grant
    placement: Placement
    sweep: str
    trial: str
    address: tuple[str, int] = ("", 0)
    secret: bytes = b""


class Launched(Protocol):
    """Workers that were started."""

    def trouble(self) -> str:
        """Why they don't run, or no longer; "" while they do."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait until what they took of the cluster is given back, at most so long."""
        ...


Launch = Callable[[Assignment], Launched]


def ray_train() -> Launch:
    """Ray Train; it takes seconds to load, and one process alone never needs it."""
    launch: Launch = importlib.import_module("rsi_ray.crew_launch").Training
    return launch


class Crew:
    """One candidate in training by several processes: a `Run`.

    They train to a report when they are asked for it, and otherwise wait. Each has joined the lease; besides,
    each kills itself once it no longer hears of this process.
    """

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}
        self._launched: Launched | None = None
        self._over = threading.Event()

    def begin(
        self, launch: Launch, assignment: Assignment, *, host: str, elapsed_ms: Callable[[], int]
    ) -> None:
        """Start the workers, and have them build the candidate.

        Args:
            launch: starts them.
            assignment: what they are told.
            host: of this process, as they reach it.
            elapsed_ms: time since the lease began.

        Raises:
            TrainingError: they don't start, or one of them fails.
        """
        with socket.create_server((host, 0)) as server:
            server.settimeout(LOOK_SECONDS)
            assignment = _reaching(assignment, host, server)
            self._launched = launch(assignment)
            self._muster(self._launched, server, assignment)
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        self._ask("begin", elapsed_ms=elapsed_ms())

    def next_report(self) -> Mapping[str, object]:
        """Have all train up to the next report; the first one's.

        Raises:
            TrainingError: one of them failed; WorkerLost where it died.
        """
        report: Mapping[str, object] = self._ask("train")[0]["report"]
        return report

    def save(self, path: Path) -> None:
        """Write the whole state, gathered from all, to a file."""
        with path.open("wb") as file:
            self._ask("save", into=file)

    def export(self, path: Path) -> None:
        """Write the weights alone, gathered from all."""
        with path.open("wb") as file:
            self._ask("export", into=file)

    def restore(self, path: Path) -> None:
        """Have all continue from a saved state."""
        self._send("restore", path)

    def give(self, path: Path) -> None:
        """Have all take weights in place of their own."""
        self._send("give", path)

    def measure(self) -> dict[str, Scored]:
        """Have all score the sealed part together, by domain; the first one's."""
        found = self._ask("measure")[0]["scored"]
        return {name: Scored(score=score, error=error) for name, (score, error) in found.items()}

    def _send(self, order: str, path: Path) -> None:
        path.open("rb").close()  # a file that can't be read is no worker's fault
        self._tell(order)
        with _losing(0):
            self._lines[0].send_file(path)  # the others hear of it from the first one
        self._answers()

    def end(self) -> None:
        """Send all away, and wait until they have gone; whoever doesn't hang up kills itself."""
        with suppress(TrainingError):
            self._tell("end")
            waiting: list[Any] = list(self._lines.values())
            while waiting and (ready := wait(waiting, END_SECONDS)):
                waiting = [line for line in waiting if line not in ready or not _hung_up(line)]
        self.abandon()
        if self._launched:  # the next candidate may need the same GPUs
            self._launched.wait(GONE_SECONDS)

    def abandon(self) -> None:
        """Hang up on all: each kills itself at once, whatever it does."""
        self._over.set()
        lines, self._lines = self._lines, {}
        for line in lines.values():
            line.close()

    def _muster(self, launched: Launched, server: socket.socket, assignment: Assignment) -> None:
        """Hear of all of them, then wait until all have loaded what they need."""
        workers = assignment.placement.workers
        while len(self._lines) < workers:
            if trouble := launched.trouble():
                raise TrainingError(f"the {workers} workers of the candidate don't start: {trouble}")
            line = accept(server, assignment.secret)
            if line is None:
                continue
            with suppress(EOFError, OSError):  # it is gone already, which its launcher tells
                message = line.message_or_chunk()
                if isinstance(message, dict) and "rank" in message:
                    self._lines[message["rank"]] = line
        self._lines = dict(sorted(self._lines.items()))
        self._answers()

    def _pulse(self) -> None:
        while not self._over.wait(PULSE_SECONDS):
            for line in list(self._lines.values()):
                with suppress(OSError):  # whoever asks it next hears of that
                    line.pulse()

    def _ask(self, order: str, into: BinaryIO | None = None, **more: Any) -> dict[int, dict[str, Any]]:
        self._tell(order, **more)
        return self._answers(into)

    def _tell(self, order: str, **more: Any) -> None:
        for rank, line in self._lines.items():
            with _losing(rank):
                line.tell(order=order, **more)

    def _answers(self, into: BinaryIO | None = None) -> dict[int, dict[str, Any]]:
        """What each answers; the first that fails or dies ends it, since the others may wait for that one."""
        ranks: dict[Any, int] = {line: rank for rank, line in self._lines.items()}
        answers: dict[int, dict[str, Any]] = {}
        full: OSError | None = None
        while len(answers) < len(ranks):
            for line in wait([line for line, rank in ranks.items() if rank not in answers]):
                with _losing(ranks[line]):
                    answer = line.message_or_chunk()  # type: ignore[union-attr]
                if not isinstance(answer, dict):
                    full = full or _written(into, answer)
                elif "error" in answer:
                    self._look_for_the_dead(ranks[line])
                    raise TrainingError(f"worker {ranks[line]}: {answer['error']}")
                else:
                    answers[ranks[line]] = answer
        if full:  # all that was sent is off the lines
            raise full
        return answers

    def _look_for_the_dead(self, told_by: int) -> None:
        """Where one tells of a failure, another one's death may be the reason.

        Raises:
            WorkerLost: it is.
        """
        others: dict[Any, int] = {line: rank for rank, line in self._lines.items() if rank != told_by}
        for line in wait(list(others), DEATH_SECONDS):
            with _losing(others[line]):
                line.message_or_chunk()  # type: ignore[union-attr]


def _reaching(assignment: Assignment, host: str, server: socket.socket) -> Assignment:
    address = (host, int(server.getsockname()[1]))
    return replace(assignment, address=address, secret=secrets.token_bytes(32))


def _hung_up(line: Line) -> bool:
    try:
        line.message_or_chunk()
    except (EOFError, OSError):
        return True
    return False


def _written(into: BinaryIO | None, chunk: bytes) -> OSError | None:
    """Write a part of a file; why it can't be."""
    try:
        if into is not None:
            into.write(chunk)
    except OSError as error:
        return error
    return None


@contextmanager
def _losing(rank: int) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise WorkerLost(f"worker {rank} of the candidate died, or can't be reached") from error
