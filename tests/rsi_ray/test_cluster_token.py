"""Where the token of a cluster is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsi_ray.cluster_token import show_token


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
