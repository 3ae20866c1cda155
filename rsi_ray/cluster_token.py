"""The token of clusters that ask for one."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def show_token(variables: MutableMapping[str, str], home: Path) -> None:
    """Let Ray show the token that lies here to every API server: by itself it does to clusters that it joins.

    Has to be called before Ray is loaded. Who has set the mode is obeyed. See Ray's documentation of token
    authentication for where a token lies.
    """
    if MODE in variables:
        return
    with suppress(OSError):  # a home that may not be read has none
        if variables.get(TOKEN) or Path(variables.get(TOKEN_PATH) or home / ".ray" / "auth_token").is_file():
            variables[MODE] = "token"
