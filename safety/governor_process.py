"""Ray shell: the cluster's one governor, in a process of its own on the head node."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from safety.answers import Question, Signed, read, sealed
from safety.database import without_password
from safety.errors import SafetyError
from safety.exporter import Exporter
from safety.identity import identity_in
from safety.kernel import be_served_as_others_are
from safety.metrics import METRICS, samples
from safety.office import Office

NAME = "governor"
NAMESPACE = "rsi_ray"
# after which a governor that nobody has asked opens its ledger
UNASKED_SECONDS = 5.0


class GovernorActor:
    """The governor in a process of its own, on the head node, beside its ledger.

    Every call is safe to repeat: Ray delivers at least once.

    Args:
        ledger_url: of its ledger.
        state: folder of its key, and of the file that kills.
    """

    def __init__(self, ledger_url: str, state: str) -> None:
        be_served_as_others_are()
        self._url, self._folder = ledger_url, Path(state)
        self._identity = identity_in(self._folder)
        self._opening = threading.Lock()
        self._office: Office | None = None
        threading.Thread(target=self._open_unasked, name="opener", daemon=True).start()

    async def _opened(self) -> Office:
        return await asyncio.to_thread(self._open) if self._office is None else self._office

    def _open(self) -> Office:
        # not as the actor is made: Ray starts none again that failed then, and a full disk has room again
        with self._opening:
            if self._office is None:
                self._office = Office(self._url, self._folder, self._identity)
                keep_telling(self._office)
        return self._office

    def _open_unasked(self) -> None:
        """Be at work after a restart too, though the drivers are dead and nobody asks."""
        while self._office is None:
            time.sleep(UNASKED_SECONDS)
            with suppress(Exception):  # whoever asks is told why
                self._open()

    async def about(self) -> tuple[str, str]:
        """The ledger's URL and the public key: what it says of itself, unproven."""
        return self._url, self._identity.public

    async def ask(self, question: Question) -> Signed:
        """Call a method of the governor."""
        try:
            office, (method, arguments) = await self._opened(), read(question)
            if method == "sign_into":  # a disk that hangs keeps nobody else waiting
                answer: object = await asyncio.to_thread(office.sign_into, *arguments)
            else:
                answer = await asyncio.wrap_future(office.ask(method, arguments))
        except SafetyError as error:
            answer = error
        return sealed(self._identity, question, answer)

    def __repr__(self) -> str:
        """Shown in the dashboard."""
        return f"Governor({without_password(self._url)})"


def keep_telling(office: Office) -> None:
    """Tell the metrics of a ledger in a thread of its own, while this process lives."""
    exporter = Exporter(METRICS, lambda: samples(office.observe()))
    target, over = exporter.keep_telling, threading.Event()
    with suppress(RuntimeError):  # no thread to spare: nothing depends on what is only shown
        threading.Thread(target=target, args=(over,), name="metrics", daemon=True).start()


def governor_actor(ledger_url: str, state: str) -> Any:
    """The actor by the governor's name; it is started where there is none."""
    actor = ray.remote(GovernorActor).options(
        name=NAME,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        # the ledger lies on the head node
        resources={"node:__internal_head__": 0.001},
        max_restarts=-1,
        max_task_retries=2,
    )
    return actor.remote(ledger_url, state)
