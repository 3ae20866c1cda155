"""Answers that prove whose they are: signed together with the question and a number that is used once."""

from __future__ import annotations

import hashlib
import os
import pickle
from typing import Any

from safety.errors import IdentityError
from safety.identity import Identity, is_signed

NONCE_BYTES = 16
Question = tuple[bytes, bytes]
Signed = tuple[bytes, bytes]


def asked(method: str, arguments: tuple[Any, ...]) -> Question:
    """A question: a number that is used once, and what is asked for."""
    return os.urandom(NONCE_BYTES), pickle.dumps((method, arguments))


def read(question: Question) -> tuple[str, tuple[Any, ...]]:
    """The method and the arguments of a question."""
    # whoever may call the governor's actor could have Ray unpickle anything there as well
    method, arguments = pickle.loads(question[1])  # noqa: S301
    return str(method), tuple(arguments)


def sealed(identity: Identity, question: Question, answer: object) -> Signed:
    """An answer, which may be an error, with the signature that it is the answer to this question."""
    payload = pickle.dumps(answer)
    return payload, identity.sign(_statement(question, payload))


def opened(public: str, question: Question, signed: object) -> Any:
    """The answer.

    Raises:
        IdentityError: nobody who holds the key has given it to this question.
        Exception: the answer, where it is an error.
    """
    if not _is_genuine(public, question, signed):
        raise IdentityError(
            f"the governor's answer isn't signed by its key {public[:12]}...: another process has its name"
        )
    answer = pickle.loads(signed[0])  # type: ignore[index]  # noqa: S301  # it is the governor's own
    if isinstance(answer, Exception):
        raise answer
    return answer


def _is_genuine(public: str, question: Question, signed: object) -> bool:
    if not isinstance(signed, tuple) or [type(part) for part in signed] != [bytes, bytes]:
        return False
    payload, signature = signed
    return is_signed(public, signature, _statement(question, payload))


def _statement(question: Question, payload: bytes) -> bytes:
    nonce, body = question
    return nonce + hashlib.sha256(body).digest() + hashlib.sha256(payload).digest()
