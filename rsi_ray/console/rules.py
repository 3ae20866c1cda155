"""Who may ask what: where the server listens, which requests are answered, what a kill must say."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from rsi_ray.errors import RunError
from safety.document import Document, StrictModel, validate
from safety.errors import DocumentError
from safety.token import is_bearer

MOST_BODY_BYTES = 16_384
MOST_CHARACTERS = 1_000
LOCALHOST = "localhost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        reason: in one line.
    """

    status: HTTPStatus
    reason: str


def check_host(host: str, *, allow_public: bool) -> None:
    """Whether the server may listen there.

    Raises:
        RunError: others than this machine could reach it, and nobody has allowed that.
    """
    if not allow_public and not _is_loopback(host):
        raise RunError(
            f"serve: --host {host}: others than this machine could reach it, and what they send is not "
            "encrypted; expected a loopback address, or --allow-public"
        )


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == LOCALHOST if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def refusal(host: str | None, authorization: str, names: Collection[str], token: str) -> Refusal | None:
    """Why a request is not answered, by its headers; None where it is.

    Args:
        host: header; a browser that a page of another name has led here tells that name, or an address.
        authorization: header; "" for none.
        names: of the server, beside its addresses and localhost.
        token: that must be shown.
    """
    if not host:
        return Refusal(status=HTTPStatus.BAD_REQUEST, reason="Host: missing, and required")
    if not _is_own(host, names):
        return Refusal(status=HTTPStatus.FORBIDDEN, reason="Host: expected an address, or a name by --name")
    if not is_bearer(authorization, token):
        return Refusal(status=HTTPStatus.UNAUTHORIZED, reason="Authorization: expected Bearer and the token")
    return None


def _is_own(header: str, names: Collection[str]) -> bool:
    try:
        host = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    return host in (LOCALHOST, *(name.lower() for name in names)) or _address(host) is not None


def _told(text: str) -> str:
    if not text.strip() or len(text) > MOST_CHARACTERS:
        raise ValueError(f"expected text of 1 to {MOST_CHARACTERS} characters")
    return text


Text = Annotated[str, AfterValidator(_told)]


class KillRequest(StrictModel):
    """Why the switch is thrown, and by whom."""

    reason: Text
    by: Text | None = None


def kill_request(body: bytes) -> KillRequest:
    """A kill as its body asks for it.

    Raises:
        DocumentError: one line: what was expected.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise DocumentError('body: not valid JSON; expected {"reason": text}') from None
    return validate(KillRequest, Document(source="body", data=data))
