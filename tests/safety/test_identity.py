import threading

import pytest

from safety.errors import IdentityError
from safety.identity import (
    KEY_FILE,
    PUBLIC_FILE,
    identity_in,
    identity_of,
    is_signed,
    make_identity,
    public_in,
)


def test_a_key_is_made_once_and_found_again(tmp_path):
    first = identity_in(tmp_path / "state")
    assert identity_in(tmp_path / "state").public == first.public
    assert identity_in(tmp_path / "other").public != first.public
    assert len(first.public) == 64
    assert (tmp_path / "state" / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (tmp_path / "state").iterdir()} == {KEY_FILE, PUBLIC_FILE}


def test_everybody_may_read_the_public_half(tmp_path):
    assert public_in(tmp_path) is None
    made = identity_in(tmp_path)
    assert public_in(tmp_path) == made.public
    assert (tmp_path / PUBLIC_FILE).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("content", [b"", b"0" * 63, b"g" * 64, b"\xff" * 64])
def test_a_public_half_that_is_none_is_refused(tmp_path, content):
    (tmp_path / PUBLIC_FILE).write_bytes(content)
    with pytest.raises(IdentityError, match=r"governor\.pub: (expected the 64 hexadecimal|cannot be read)"):
        public_in(tmp_path)


def test_a_signature_holds_for_its_message_and_its_key_alone(tmp_path):
    ours, other = identity_in(tmp_path), identity_in(tmp_path / "other")
    signature = ours.sign(b"killed")
    assert is_signed(ours.public, signature, b"killed")
    assert not is_signed(ours.public, signature, b"alive")
    assert not is_signed(other.public, signature, b"killed")
    assert not is_signed(ours.public, b"short", b"killed")


@pytest.mark.parametrize("public", ["", "not hexadecimal", "00"])
def test_what_is_no_key_has_signed_nothing(tmp_path, public):
    assert not is_signed(public, identity_in(tmp_path).sign(b"x"), b"x")


def test_of_several_that_make_the_key_at_once_all_have_the_same(tmp_path):
    found, start = [], threading.Barrier(8)

    def make():
        start.wait()
        found.append(identity_in(tmp_path).public)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


def test_a_key_that_others_may_read_is_refused(tmp_path):
    identity_in(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(IdentityError, match=r"others may read it \(mode 640\); expected mode 600"):
        identity_in(tmp_path)


# in PKCS 8, of an algorithm that nobody has
UNKNOWN = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2V/BCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
-----END PRIVATE KEY-----
"""


@pytest.mark.parametrize("text", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n", UNKNOWN])
def test_a_file_that_is_no_key_is_refused_and_left(tmp_path, text):
    path = tmp_path / KEY_FILE
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="expected an Ed25519 key in PEM"):
        identity_in(tmp_path)
    assert path.read_bytes() == text


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError, match="cannot be used"):
        identity_in(tmp_path / "file")


def test_a_key_of_ones_own_is_made_once_and_read_again(tmp_path):
    made = make_identity(tmp_path / "ann")
    assert identity_of(tmp_path / "ann").public == made.public
    assert (tmp_path / "ann").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("ann", "link"):
        with pytest.raises(IdentityError, match="there already; a key is never written over"):
            make_identity(tmp_path / name)


@pytest.mark.parametrize("name", ["gone/key", "a\0b"])
def test_a_key_that_can_be_neither_written_nor_read_is_told_in_one_line(tmp_path, name):
    with pytest.raises(IdentityError, match=r"cannot be written: (No such file|embedded null)"):
        make_identity(tmp_path / name)
    with pytest.raises(IdentityError, match=r"cannot be read: (No such file|embedded null)"):
        identity_of(tmp_path / name)
