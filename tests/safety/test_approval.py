"""What counts as an approval: pure, without a ledger."""

from dataclasses import fields, replace

import pytest

from safety import (
    Act,
    Allow,
    Approval,
    ArtifactError,
    Deny,
    Hold,
    artifact_digest,
    limits_from_dict,
    read_artifact,
    read_plain_file,
)
from safety.approval import Request, another, decide, judged, refusal
from safety.errors import DocumentError
from tests.safety.approvers import approval, identity

HOUR = 3_600_000
ACT = Act(kind="promote", subject="a1", parent="a0", generation=2, policy="p1", evidence="e1", sweep="s")
REQUEST = Request(act=ACT, about="better", by="loop", at_ms=1_000, expires_ms=1_000 + HOUR)
ONE, TWO = approval("ann", "bob"), approval("ann", "bob", "eve", quorum=2)


def said(name, answer="approve", request=REQUEST, by=None, **changed):
    made = decide(request.digest, answer, by or name, "seen", identity(name))
    return replace(made, **changed)


def names_another_key():
    """Signed by ann, and shown with the key of bob."""
    plain = said("ann", public=identity("bob").public)
    return replace(plain, signature=identity("ann").sign(plain.message).hex())


def verdict(*decisions, of=REQUEST, by=ONE, now=1_000):
    return judged(of, decisions, by, now)


def test_a_quorum_of_signed_approvals_allows_and_one_less_waits():
    assert verdict(said("ann")) == Allow()
    told = f"request {REQUEST.name} needs 2 approvals, and was approved by ann"
    assert verdict(said("ann"), by=TWO) == Hold("approval.quorum", told)
    assert verdict(said("ann"), said("eve"), by=TWO) == Allow()


def test_no_answer_is_no():
    assert verdict() == Hold(
        "approval.quorum", f"request {REQUEST.name} needs 1 approvals, and was approved by nobody"
    )


def test_where_nobody_is_named_nothing_is_approved():
    assert isinstance(verdict(said("ann"), by=Approval()), Hold)


def test_reject_wins_over_any_number_of_approvals():
    found = verdict(said("ann"), said("bob", "reject"), by=approval("ann", "bob", "eve"))
    assert found == Deny("approval.rejected", f"request {REQUEST.name} was rejected by bob: seen")
    assert isinstance(verdict(said("ann", "reject"), said("ann")), Deny)


def test_one_approver_twice_is_no_quorum():
    assert isinstance(verdict(said("ann"), said("ann"), by=TWO), Hold)


@pytest.mark.parametrize(
    ("now", "allowed"), [(999, False), (1_000, True), (HOUR + 999, True), (HOUR + 1_000, False)]
)
def test_an_approval_counts_until_its_hours_are_over_and_not_before_it_was_asked(now, allowed):
    found = verdict(said("ann"), now=now)
    assert found == Allow() if allowed else found.rule == "approval.expired"


@pytest.mark.parametrize(
    "forged",
    [
        said("ann", signature="00" * 64),
        said("ann", signature="zz"),
        said("ann", reason="another"),
        said("ann", reason="\ud83d"),
        said("bob", by="ann"),
        said("bob", by="ann", public=identity("ann").public),
        said("ann", request=replace(REQUEST, about="other")),
        replace(said("ann", request=replace(REQUEST, about="other")), request=REQUEST.digest),
        replace(said("ann", "reject"), answer="approve"),
        names_another_key(),
    ],
)
def test_what_an_approver_has_not_signed_of_this_request_does_not_count(forged):
    assert refusal(REQUEST, forged, ONE, 1_000).rule == "approval.forged"
    assert isinstance(verdict(forged), Hold)


def test_a_stranger_counts_for_nothing_neither_way():
    assert refusal(REQUEST, said("eve"), ONE, 1_000).rule == "approval.approver"
    assert verdict(said("eve", "reject"), said("ann")) == Allow()


def test_a_proposer_does_not_approve_unless_the_limits_say_so_and_may_always_reject():
    own = replace(REQUEST, by="ann")
    decision = said("ann", request=own)
    assert refusal(own, decision, ONE, 1_000).rule == "approval.proposer"
    assert isinstance(verdict(decision, of=own), Hold)
    assert verdict(decision, of=own, by=approval("ann", proposer_may_approve=True)) == Allow()
    assert isinstance(verdict(said("ann", "reject", own), said("bob", request=own), of=own), Deny)


OTHER = {
    "kind": "loosen",
    "subject": "a2",
    "parent": "",
    "generation": 3,
    "policy": "p2",
    "evidence": "",
    "sweep": "t",
    "lifts": "runaway",
    "train_gflop": "3",
}


@pytest.mark.parametrize("name", OTHER)
def test_an_approval_is_of_exactly_one_act(name):
    assert set(OTHER) == {field.name for field in fields(Act)}
    assert another(ACT, ACT) is None
    wanted = replace(ACT, **{name: OTHER[name]})
    assert another(ACT, wanted).rule == f"approval.{name}"
    assert replace(REQUEST, act=wanted).digest != REQUEST.digest


def given(**section):
    bounds = {"max_params": 1, "max_flops": 1, "max_memory": 1}
    return limits_from_dict({"bounds": bounds, "approval": section})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"approvers": {"ann": "xy"}}, "expected the 64 hexadecimal digits of a public key"),
        ({"approvers": {"a b": "0" * 64}}, "expected a name of letters, digits and"),
        ({"approvers": {"ann": "0" * 64, "bob": "0" * 64}}, "expected a key of their own for each approver"),
        ({"approvers": {"ann": "0" * 64}, "quorum": 2}, "expected a quorum of at most the 1 approvers"),
        ({"approvers": {}}, "expected a quorum of at most the 0 approvers"),
        ({"quorum": 2}, "expected a quorum of at most the 0 approvers"),
        ({"hours": 0}, "approval.hours: expected a number from 1"),
    ],
)
def test_limits_that_could_never_be_approved_by_are_refused_in_one_line(section, message):
    with pytest.raises(DocumentError) as caught:
        given(**section)
    assert message in str(caught.value)
    assert str(caught.value).startswith("safety_config: approval")
    assert "\n" not in str(caught.value)


def test_the_order_of_approvers_is_no_other_policy():
    one, other = (
        given(approvers={"ann": "0" * 64, "bob": "1" * 64}),
        given(approvers={"bob": "1" * 64, "ann": "0" * 64}),
    )
    assert one.digest == other.digest != given(approvers={"ann": "0" * 64}).digest


def test_a_request_that_shows_other_limits_than_it_asks_for_is_approved_by_nothing():
    shown = limits_from_dict({"bounds": {"max_params": 1, "max_flops": 1, "max_memory": 1}})
    act = Act(kind="loosen", subject=shown.digest)
    honest = replace(REQUEST, act=act, about=shown.canonical)
    assert verdict(said("ann", request=honest), of=honest) == Allow()
    lying = replace(honest, about="{}")
    assert refusal(lying, said("ann", request=lying), ONE, 1_000).rule == "approval.forged"
    assert verdict(said("ann", request=lying), of=lying).rule == "approval.forged"


# --- the artifact's file


def test_an_artifact_is_what_lies_in_its_file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    assert artifact_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_link_a_folder_and_what_is_not_there_are_no_artifacts(tmp_path):
    (tmp_path / "weights").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "weights")
    for name, told in (
        ("link", "expected a plain file, found a symbolic link"),
        (".", "expected a plain file, found none"),
        ("gone", "cannot be read: No such file"),
        ("a\0b", "cannot be read: embedded null"),
    ):
        for read in (artifact_digest, read_plain_file):
            with pytest.raises(ArtifactError, match=told):
                read(tmp_path / name)


def test_an_artifact_is_read_by_its_digest_and_a_plain_file_whatever_it_is(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    digest = artifact_digest(path)
    assert read_artifact(path, digest) == read_plain_file(path) == b"abc"
    path.write_bytes(b"abd")
    with pytest.raises(ArtifactError, match=r"expected the file of digest 'ba78.*, found a52d"):
        read_artifact(path, digest)
    assert read_plain_file(path) == b"abd"


def test_a_file_that_became_a_link_after_the_look_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "weights").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "weights")
    monkeypatch.setattr("safety.artifact.os.lstat", lambda path: (tmp_path / "weights").stat())
    with pytest.raises(ArtifactError, match="cannot be read: Too many levels of symbolic links"):
        artifact_digest(tmp_path / "link")


def test_an_artifact_is_read_where_it_is_the_one_that_was_told(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    digest = artifact_digest(path)
    assert read_artifact(path, digest) == b"abc"
    path.write_bytes(b"abd")
    with pytest.raises(ArtifactError, match=f"expected the file of digest '{digest}', found a52d"):
        read_artifact(path, digest)
