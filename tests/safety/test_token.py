import pytest

from safety.errors import IdentityError
from safety.token import TOKEN_FILE, is_bearer, token_in


def test_a_token_is_made_once_for_its_owner_alone(tmp_path):
    folder = tmp_path / "state"
    token = token_in(folder)
    assert len(token) >= 32
    assert token_in(folder) == token
    assert (folder / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert token_in(tmp_path) != token


def test_one_of_its_owners_own_may_end_with_a_line(tmp_path):
    path = tmp_path / TOKEN_FILE
    path.touch(mode=0o600)
    path.write_text("a" * 32 + "\n")
    assert token_in(tmp_path) == "a" * 32


@pytest.mark.parametrize("content", ["", "short", "a" * 31, "a b" * 20, "\xe9" * 40, "a" * 513])
def test_what_is_no_token_is_refused(tmp_path, content):
    path = tmp_path / TOKEN_FILE
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(IdentityError, match="expected a token of 32 to 512"):
        token_in(tmp_path)


def test_one_that_others_may_read_is_refused(tmp_path):
    token_in(tmp_path)
    (tmp_path / TOKEN_FILE).chmod(0o640)
    with pytest.raises(IdentityError, match="others may read it \\(mode 640\\)"):
        token_in(tmp_path)


def test_a_place_that_can_not_be_used_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError, match="cannot be used"):
        token_in(tmp_path / "file")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ("Bearer token", True),
        ("bearer  token", True),
        ("Basic token", False),
        ("token", False),
        ("Bearer tokens", False),
        ("Bearer \ud800", False),
        ("", False),
    ],
)
def test_only_a_bearer_of_exactly_the_token_is_let_in(shown, expected):
    assert is_bearer(shown, "token") is expected
