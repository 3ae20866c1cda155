"""Where the token of a cluster is looked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import ray  # noqa: F401

from rsi_ray.cluster_token import show_token
from tests.conftest import Command


def shown(home: Path, **variables: str) -> str | None:
    show_token(variables, home)
    return variables.get("RAY_AUTH_MODE")


def test_a_token_at_home_is_shown(tmp_path: Path):
    assert shown(tmp_path) is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    assert shown(tmp_path) == "token"


def test_a_token_that_the_environment_tells_is_shown(tmp_path: Path):
    (tmp_path / "elsewhere").touch()
    assert shown(tmp_path, RAY_AUTH_TOKEN="secret") == "token"
    assert shown(tmp_path, RAY_AUTH_TOKEN_PATH=str(tmp_path / "elsewhere")) == "token"
    assert shown(tmp_path, RAY_AUTH_TOKEN_PATH=str(tmp_path / "nowhere")) is None


@pytest.mark.parametrize("mode", ["disabled", "k8s"])
def test_who_has_set_the_mode_is_obeyed(tmp_path: Path, mode: str):
    assert shown(tmp_path, RAY_AUTH_TOKEN="secret", RAY_AUTH_MODE=mode) == mode


def test_where_nobody_may_look_there_is_none(tmp_path: Path):
    assert shown(tmp_path, RAY_AUTH_TOKEN_PATH="x" * 300) is None
    assert shown(Path("~"), HOME="/nowhere") is None


def test_a_process_that_has_loaded_ray_is_left_as_it_is(
    command_here: Command, monkeypatch: pytest.MonkeyPatch
):
    """Ray has looked by then; what it starts would ask for the token, and it would show none."""
    assert "ray" in sys.modules
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert command_here("--help")[0] == 0
    assert "RAY_AUTH_MODE" not in os.environ
