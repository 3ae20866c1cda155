"""Environment variables for a while."""

from __future__ import annotations

import os
from contextlib import suppress

from safety.environment import environment


def test_the_environment_is_as_it_was_whatever_happens_meanwhile(monkeypatch):
    monkeypatch.setenv("RSI_KEPT", "before")
    monkeypatch.delenv("RSI_NEW", raising=False)
    before = dict(os.environ)
    with suppress(KeyError), environment({"RSI_KEPT": "now", "RSI_NEW": "1"}):
        assert (os.environ["RSI_KEPT"], os.environ["RSI_NEW"]) == ("now", "1")
        del os.environ["RSI_NEW"]
        raise KeyError
    assert dict(os.environ) == before
