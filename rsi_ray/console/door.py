"""Who may stay connected: without the token nobody for long, and few at a time."""

from __future__ import annotations

import asyncio
from typing import cast

# until a connection must have shown the token
UNKNOWN_SECONDS = 5.0
# connections that have not, at once
MOST_UNKNOWN = 64


class Door:
    """The open connections on which the token was not shown yet.

    Of too many the oldest are closed, not the newest refused: a kill finds its way beside those who wait.

    Args:
        seconds: that each may take.
        most: of them at once.
    """

    def __init__(self, seconds: float = UNKNOWN_SECONDS, most: int = MOST_UNKNOWN) -> None:
        self._seconds, self._most = seconds, most
        # in the order in which they came
        self._unknown: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def enters(self, transport: asyncio.Transport) -> None:
        """A connection was opened."""
        if len(self._unknown) >= self._most:
            self._close(next(iter(self._unknown)))
        later = asyncio.get_running_loop().call_later(self._seconds, self._close, transport)
        self._unknown[transport] = later

    def knows(self, transport: asyncio.BaseTransport | None) -> None:
        """A connection has shown the token, or is over."""
        timer = self._unknown.pop(transport, None) if transport else None
        if timer:
            timer.cancel()

    def _close(self, transport: asyncio.BaseTransport) -> None:
        self.knows(transport)
        cast(asyncio.Transport, transport).abort()


class Watched(asyncio.Protocol):
    """A connection as the server's protocol has it, seen by the door.

    Args:
        server: the protocol, of one connection.
        door: which it comes by.
    """

    def __init__(self, server: asyncio.Protocol, door: Door) -> None:
        self._server, self._door = server, door
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open it."""
        self._transport = transport
        self._door.enters(cast(asyncio.Transport, transport))
        self._server.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._door.knows(self._transport)
        self._server.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._server.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass the end of what is sent on."""
        return self._server.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the other side reads too slowly."""
        self._server.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it has caught up."""
        self._server.resume_writing()
