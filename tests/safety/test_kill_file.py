import pytest

from safety import Allow, Deny
from safety.kill_file import MOST, NAME, obey, put, reason_in
from tests.safety.fakes import kinds, request


def test_a_file_by_the_name_kills_with_what_it_says(ledger, tmp_path):
    obey(ledger, tmp_path)
    assert ledger.killed() is None
    (tmp_path / NAME).write_text("smoke in\nrack 4\n")
    obey(ledger, tmp_path)
    assert (ledger.killed().reason, ledger.killed().by) == ("smoke in rack 4", "the file KILL")
    assert isinstance(ledger.reserve(request()), Deny)


def test_it_kills_once_and_again_where_it_still_stands_after_the_switch_was_lifted(ledger, tmp_path):
    (tmp_path / NAME).touch()
    obey(ledger, tmp_path)
    obey(ledger, tmp_path)
    assert kinds(ledger).count("kill") == 1
    ledger.unkill("over", by="ann")
    obey(ledger, tmp_path)
    assert ledger.killed().reason == "the file KILL"
    (tmp_path / NAME).unlink()
    ledger.unkill("over", by="ann")
    obey(ledger, tmp_path)
    assert ledger.reserve(request()) == Allow()


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "the file KILL"), (b"\xff", "\ufffd"), (b"x" * 999, "x" * MOST)]
)
def test_whatever_it_holds_it_kills(tmp_path, content, reason):
    (tmp_path / NAME).write_bytes(content)
    assert reason_in(tmp_path) == reason


def test_one_that_can_not_be_read_kills(tmp_path):
    (tmp_path / NAME).mkdir()
    assert reason_in(tmp_path) == "the file KILL"


def test_it_is_put_there_with_a_reason_in_one_line_and_kept_if_it_stands(ledger, tmp_path):
    assert put(tmp_path, "smoke\nin \ud800 rack 4") == tmp_path / NAME
    put(tmp_path, "another")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("ledger")] == [NAME]
    obey(ledger, tmp_path)
    assert ledger.killed().reason == "smoke in ? rack 4"


def test_where_not_even_an_empty_one_can_be_put_it_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        put(tmp_path / "none", "smoke")
