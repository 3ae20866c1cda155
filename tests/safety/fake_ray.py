"""Ray's tiny surface in this process: actors are plain objects, whose calls run on a loop of their own."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from contextlib import contextmanager
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError, RayActorError

from safety.office import Office

Name = tuple[str | None, str | None]


class FakeRay:
    """What the shells of `safety` use of Ray; tests/integration runs them on a real one.

    Attributes:
        actors: the live ones, by name and namespace.
        options: that each actor was started with.
        addresses: of the nodes, which are alive but for the last one.
    """

    def __init__(self) -> None:
        self.actors: dict[Name, Handle] = {}
        self.options: list[dict[str, Any]] = []
        self.addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.9"]
        self.initialized = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what still runs, and the loop."""
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def is_initialized(self) -> bool:
        return self.initialized > 0

    def init(self) -> None:
        self.initialized += 1

    def remote(self, actor: type) -> "_Maker":
        return _Maker(self, actor, {})

    def get(self, asked: Any, timeout: float | None = None) -> Any:
        if isinstance(asked, list):
            return [self.get(one, timeout) for one in asked]
        try:
            return asked.result(timeout)
        except TimeoutError:
            raise GetTimeoutError("not in time") from None

    def wait(self, asked: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        done, pending = wait(asked, timeout, return_when=FIRST_COMPLETED)
        return list(done)[:1], [*list(done)[1:], *pending]

    def get_actor(self, name: str, namespace: str) -> "Handle":
        if (name, namespace) not in self.actors:
            raise ValueError(f"there is no actor {name}")
        return self.actors[name, namespace]

    def kill(self, handle: "Handle") -> None:
        handle.is_alive = False
        self.actors = {name: actor for name, actor in self.actors.items() if actor is not handle}

    def nodes(self) -> list[dict[str, Any]]:
        last = self.addresses[-1]
        return [{"NodeManagerAddress": one, "Alive": one != last} for one in reversed(self.addresses)]

    def run(self, method: Callable[..., Any], arguments: tuple[Any, ...]) -> "Future[Any]":
        """The answer of a method, which may be asynchronous."""

        async def answer() -> Any:
            found = method(*arguments)
            return await found if inspect.isawaitable(found) else found

        return asyncio.run_coroutine_threadsafe(answer(), self._loop)


@contextmanager
def governing(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    """A Ray on which governors run; their ledgers are closed in the end."""
    fake, offices = FakeRay(), list[Office]()

    def opened(*arguments: Any) -> Office:
        offices.append(Office(*arguments))
        return offices[-1]

    monkeypatch.setattr("safety.actor.ray", fake)
    monkeypatch.setattr("safety.governor_process.ray", fake)
    monkeypatch.setattr("safety.governor_process.Office", opened)
    # this process's own priority is none of a test's business
    monkeypatch.setattr("safety.governor_process.be_served_as_others_are", lambda: None)
    monkeypatch.setattr("safety.governor_process.keep_telling", lambda office: None)
    yield fake
    for office in offices:
        office.close()
    fake.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _Maker:
    """An actor's class."""

    def __init__(self, ray: FakeRay, actor: type, options: dict[str, Any]) -> None:
        self._ray, self._actor, self._options = ray, actor, options

    def options(self, **options: Any) -> "_Maker":
        return _Maker(self._ray, self._actor, options)

    def remote(self, *arguments: Any) -> "Handle":
        name = self._options.get("name"), self._options.get("namespace")
        if self._options.get("get_if_exists") and name in self._ray.actors:
            return self._ray.actors[name]
        handle = self._ray.actors[name] = Handle(self._ray, self._actor(*arguments))
        self._ray.options.append(self._options)
        return handle


class Handle:
    """An actor as others hold it."""

    def __init__(self, ray: FakeRay, actor: Any) -> None:
        self.is_alive, self.actor, self._ray = True, actor, ray

    def __getattr__(self, method: str) -> "_Method":
        if not hasattr(type(self.actor), method):
            raise AttributeError(method)
        return _Method(self, method, self._ray)


class _Method:
    def __init__(self, handle: Handle, name: str, ray: FakeRay) -> None:
        self._handle, self._name, self._ray = handle, name, ray

    def remote(self, *arguments: Any) -> "Future[Any]":
        if self._handle.is_alive:
            return self._ray.run(getattr(self._handle.actor, self._name), arguments)
        dead: Future[Any] = Future()
        dead.set_exception(RayActorError())
        return dead
