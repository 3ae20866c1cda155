import pickle

import pytest

from safety import Allow, LeaseLost
from safety.answers import asked, opened, read, sealed
from safety.errors import IdentityError
from safety.identity import identity_in


@pytest.fixture
def governor(tmp_path):
    return identity_in(tmp_path)


@pytest.fixture
def question():
    return asked("renew", (7, 1))


def test_a_question_is_read_as_it_was_asked(question):
    assert read(question) == ("renew", (7, 1))


def test_an_answer_is_opened_by_whoever_asked(governor, question):
    assert opened(governor.public, question, sealed(governor, question, Allow())) == Allow()


def test_an_error_that_was_answered_is_raised(governor, question):
    with pytest.raises(LeaseLost, match="killed"):
        opened(governor.public, question, sealed(governor, question, LeaseLost("killed")))


def test_the_answer_to_one_question_is_none_to_another(governor, question):
    signed = sealed(governor, question, 15_000)
    for other in (asked("renew", (7, 1)), (question[0], asked("renew", (8, 1))[1])):
        with pytest.raises(IdentityError, match="another process has its name"):
            opened(governor.public, other, signed)


def test_an_answer_that_somebody_has_changed_or_signed_himself_is_none(governor, question, tmp_path):
    payload, signature = sealed(governor, question, 15_000)
    impostor = identity_in(tmp_path / "other")
    for signed in ((pickle.dumps(16_000), signature), sealed(impostor, question, 15_000)):
        with pytest.raises(IdentityError):
            opened(governor.public, question, signed)
    assert opened(governor.public, question, (payload, signature)) == 15_000


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("signed", [None, "yes", (), (b"x",), (b"x", "y"), [b"x", b"y"]])
def test_what_is_no_signed_answer_is_none(governor, question, signed):
    with pytest.raises(IdentityError):
        opened(governor.public, question, signed)


def test_what_an_impostor_answers_is_not_unpickled(governor, question, tmp_path):
    with pytest.raises(IdentityError):
        opened(governor.public, question, sealed(identity_in(tmp_path / "other"), question, Bomb()))
