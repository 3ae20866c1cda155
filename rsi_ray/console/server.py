"""HTTP shell of the kill switch: translates requests, and answers in JSON."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import Any

from aiohttp import web

from rsi_ray.console.door import Door, Watched
from rsi_ray.console.rules import MOST_BODY_BYTES, kill_request, refusal
from rsi_ray.console.switch import RemoteSwitch
from rsi_ray.printable import printable
from safety.errors import DocumentError, SafetyError

BODY_SECONDS = 10.0
# for what is being answered, after SIGTERM
SHUTDOWN_SECONDS = 5.0
# between two requests of a connection that has shown the token
IDLE_SECONDS = 75.0
PATHS = "GET /status or POST /kill"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve_at(listening: socket.socket, app: web.Application, door: Door) -> None:
    """Answer what comes to a socket, until SIGTERM or SIGINT."""
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, keepalive_timeout=IDLE_SECONDS
    )
    await runner.setup()
    protocol = runner.server
    if protocol is None:
        raise RuntimeError("the server of this application is not set up")
    server = await loop.create_server(lambda: Watched(protocol(), door), sock=listening)
    try:
        await over.wait()
    finally:
        server.close()
        await runner.cleanup()


def application(
    switch: RemoteSwitch, token: str, names: Collection[str] = (), door: Door | None = None
) -> web.Application:
    """The server's paths, behind its guard.

    Args:
        switch: what it throws, and whose state it tells.
        token: that every request must show.
        names: of the server, beside its addresses and localhost.
        door: which is told of the connections that have shown the token.
    """
    door = door or Door()

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        refused = refusal(request.headers.get("Host"), authorization, names, token)
        if refused is None:
            door.knows(request.transport)
            return await _told(request, handler)
        path = printable(request.path)
        log.warning("%s %s of %s is refused: %s", request.method, path, request.remote, refused.reason)
        return _error(refused.status, refused.reason)

    app = web.Application(middlewares=[guarded], client_max_size=MOST_BODY_BYTES)
    app.router.add_get("/status", _status(switch), allow_head=False)
    app.router.add_post("/kill", _kill(switch))
    return app


async def _told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The answer, or the error as JSON."""
    try:
        return await handler(request)
    except DocumentError as error:
        return _error(HTTPStatus.BAD_REQUEST, str(error))
    except SafetyError as error:
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
    except asyncio.TimeoutError:
        return _error(HTTPStatus.REQUEST_TIMEOUT, f"body: expected within {BODY_SECONDS:g} s")
    except web.HTTPRequestEntityTooLarge:
        return _error(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: expected at most {MOST_BODY_BYTES:,} bytes"
        )
    except web.HTTPMethodNotAllowed as error:
        answer = _error(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method}: expected {PATHS}")
        answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except web.HTTPException as error:
        return _error(HTTPStatus(error.status), f"{request.path}: expected {PATHS}")
    except Exception:
        log.exception("%s %s", request.method, printable(request.path))
        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the server, which is in its log")


def _status(switch: RemoteSwitch) -> Handler:
    # a ledger that is slow to be read keeps no kill waiting
    alone = asyncio.Lock()

    async def status(request: web.Request) -> web.StreamResponse:
        del request
        async with alone:
            return _json(HTTPStatus.OK, await asyncio.to_thread(switch.status))

    return status


def _kill(switch: RemoteSwitch) -> Handler:
    async def kill(request: web.Request) -> web.StreamResponse:
        wanted = kill_request(await asyncio.wait_for(request.read(), BODY_SECONDS))
        by = wanted.by or f"HTTP from {request.remote}"
        thrown = await asyncio.to_thread(switch.kill, wanted.reason, by)
        if thrown.leases is not None:
            return _json(HTTPStatus.OK, {"killed": True, "leases": thrown.leases})
        log.error("a kill by %s is not in the ledger: %s", printable(by), printable(thrown.problem))
        told = {"error": thrown.problem, "killed": False, "kill_file": thrown.file or None}
        return _json(HTTPStatus.SERVICE_UNAVAILABLE, told)

    return kill


def _error(status: HTTPStatus, reason: str) -> web.Response:
    answer = _json(status, {"error": reason})
    if status is HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _json(status: HTTPStatus, told: dict[str, Any]) -> web.Response:
    return web.json_response(told, status=status, headers=_HEADERS)
