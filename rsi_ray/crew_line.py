"""The line between a trial's process and one that trains for it: messages, files, and a pulse."""

from __future__ import annotations

import io
import json
import os
import queue
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, BinaryIO

PULSE_SECONDS = 1.0
# without a pulse, a worker no longer counts as led: less than what is left of any lease when it is renewed
DEAF_SECONDS = 3.0
# after which a peer that acknowledges nothing is given up
SILENT_SECONDS = 15
# for a peer to show that it knows the secret
GREETING_SECONDS = 5
CHUNK_BYTES = 4 * 2**20
_PULSE = b"P"
_MESSAGE = b"M"
_CHUNK = b"C"
# of Linux: milliseconds that sent data may stay unacknowledged
_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


class Line:
    """One end of a line; what one end sends, the other one hears in that order.

    Both have shown each other that they know the secret; what is sent is not encrypted, as in Ray itself.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """For `multiprocessing.connection.wait`."""
        return self._connection.fileno()

    def tell(self, **message: Any) -> None:
        """Send a message of what JSON can tell.

        Raises:
            OSError: the other end is gone.
        """
        self._send(_MESSAGE + json.dumps(message).encode())

    def pulse(self) -> None:
        """Say that this end is alive."""
        self._send(_PULSE)

    def send_file(self, path: Path) -> None:
        """Send a file's bytes."""
        with path.open("rb") as file, self.sending_file() as sent:
            shutil.copyfileobj(file, sent, CHUNK_BYTES)

    @contextmanager
    def sending_file(self) -> Iterator[BinaryIO]:
        """What is written within is sent as a file's bytes; where that fails, its end is never sent."""
        with io.BufferedWriter(_Chunks(self._send), CHUNK_BYTES) as file:
            yield file
        self._send(_CHUNK)

    def hear(self) -> tuple[bytes, bytes]:
        """What came next: its kind, and the rest.

        Raises:
            EOFError, OSError: the other end is gone.
        """
        heard = self._connection.recv_bytes()
        return heard[:1], heard[1:]

    def message_or_chunk(self) -> dict[str, Any] | bytes:
        """What came next: a message, or a part of a file.

        Raises:
            EOFError, OSError: the other end is gone.
        """
        kind, rest = self.hear()
        if kind == _CHUNK:
            return rest
        message: dict[str, Any] = json.loads(rest)
        return message

    def close(self) -> None:
        """End it; the other end hears of it at once, and so does a thread that waits here."""
        with suppress(OSError):
            with socket.socket(fileno=os.dup(self._connection.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    def _send(self, content: bytes) -> None:
        with self._lock:
            self._connection.send_bytes(content)


class _Chunks(io.RawIOBase):
    """A file that is sent while it is written."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        chunk = bytes(memoryview(content)[:CHUNK_BYTES])
        self._send(_CHUNK + chunk)
        return len(chunk)


def accept(server: socket.socket, secret: bytes) -> Line | None:
    """The next line of a server with a timeout; None where none came, or one that doesn't know the secret."""
    try:
        peer, _ = server.accept()
    except TimeoutError:
        return None
    _be_impatient(peer)
    connection = Connection(peer.detach())
    try:
        with _at_most(connection, GREETING_SECONDS):
            deliver_challenge(connection, secret)
            answer_challenge(connection, secret)
    except Exception:  # whoever it is: another one may come
        connection.close()
        return None
    return Line(connection)


@contextmanager
def _at_most(connection: Connection, seconds: int) -> Iterator[None]:
    """Within, a read waits for no longer: whoever connects and says nothing keeps nobody."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))
        yield
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))


def _be_impatient(peer: socket.socket) -> None:
    peer.setblocking(True)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _USER_TIMEOUT is not None:
        peer.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, SILENT_SECONDS * 1000)
    # reads wait for as long as a report takes; who takes nothing for so long has stopped
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SILENT_SECONDS, 0))


class Orders:
    """A worker's end: a thread hears what comes, and tells at once when nobody leads any more.

    Args:
        address: host and port of the trial's process.
        secret: that both know.
        lost: is called in that thread where the line ends before an order to end.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        address: tuple[str, int],
        secret: bytes,
        lost: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        connection: Any = Client(address, authkey=secret)
        self._line = Line(connection)
        self._lost, self._clock = lost, clock
        self._heard_at, self._ended = clock(), False
        self._heard: queue.Queue[tuple[bytes, bytes]] = queue.Queue(maxsize=8)
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def is_led(self) -> bool:
        """Whether the trial's process was heard of just now."""
        return self._clock() - self._heard_at < DEAF_SECONDS

    def next(self) -> Mapping[str, Any]:
        """The next order; waits for it."""
        order: dict[str, Any] = json.loads(self._heard.get()[1])
        return order

    def answer(self, **message: Any) -> None:
        """Answer an order."""
        self._line.tell(**message)

    def sending_file(self) -> AbstractContextManager[BinaryIO]:
        """What is written within is sent as a file's bytes, before an answer."""
        return self._line.sending_file()

    def receive_file(self, path: Path) -> None:
        """Write the file that comes after an order, up to its empty chunk."""
        with path.open("wb") as file:
            while chunk := self._heard.get()[1]:
                file.write(chunk)

    def wait_to_be_left(self, seconds: float) -> None:
        """Wait for the order to end, or at most so long; where the line ends before it, `lost` is called."""
        until = self._clock() + seconds
        with suppress(queue.Empty):
            while True:
                kind, rest = self._heard.get(timeout=max(0.0, until - self._clock()))
                if kind == _MESSAGE and json.loads(rest)["order"] == "end":
                    return

    def end(self) -> None:
        """Hang up, as ordered."""
        self._ended = True
        self._line.close()

    def _listen(self) -> None:
        try:
            while True:
                kind, rest = self._line.hear()
                self._heard_at = self._clock()
                if kind != _PULSE:
                    self._heard.put((kind, rest))
        except (EOFError, OSError):
            if not self._ended:
                self._lost()
