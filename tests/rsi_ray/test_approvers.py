"""Who decides while a loop runs, and what they are shown."""

from dataclasses import replace

import pytest

from rsi_ray.approvers import (
    Nobody,
    Policy,
    PolicyApprover,
    TerminalApprover,
    local_signer,
    named_signer,
    policy_from_yaml,
    problems_for,
    with_approver,
)
from rsi_ray.errors import SweepError
from rsi_ray.proposal import Domain, Proposal, Size, from_json, lines_of
from safety import Act, Approval, DocumentError
from safety.approval import Request
from safety.errors import IdentityError
from tests.safety.fakes import limits

PROPOSAL = Proposal(
    lineage="line",
    generation=2,
    current=0.5,
    proposed=0.53,
    improvement=0.06,
    noise="+0.0300: believed",
    seeds=3,
    is_sealed=True,
    reported=0.54,
    domains={
        "reasoning": Domain(current=0.4, proposed=0.5, ceiling=0.95),
        "own": Domain(current=None, proposed=0.1),
    },
    difference={"depth": (1, 2)},
    before=Size(params=1000, train_flops=100),
    after=Size(params=2000, train_flops=300),
    ancestors=("0-aa", "1-bb"),
)
REQUEST = Request(act=Act(kind="promote", subject="a"), about="", by="loop", at_ms=0, expires_ms=1)


@pytest.fixture
def signer(tmp_path):
    return local_signer(tmp_path, "ann")


def typed(*lines):
    """A terminal on which these lines are typed, and then it is closed; what was shown is kept."""
    left, shown = list(lines), []

    def ask(question):
        shown.append(question)
        if not left:
            raise EOFError
        return left.pop(0)

    return ask, shown


def test_a_proposal_comes_back_from_the_ledger_as_it_was():
    assert from_json(PROPOSAL.to_json()) == PROPOSAL


@pytest.mark.parametrize("words", ["5% better", "{}", "[]", "3", '{"domains": {}}'])
def test_other_words_are_no_proposal(words):
    assert from_json(words) is None


def test_people_see_scores_noise_domains_ceilings_difference_cost_and_lineage():
    shown = "\n".join(lines_of(replace(PROPOSAL, held="over the ceiling", incident="it lied")))
    for part in (
        "current score   0.5000",
        "proposed score  0.5300  (+6.0%)",
        "difference      +0.0300: believed",
        "by 3 seeds on sealed data; its worker reported 0.5400",
        "reasoning: 0.4000 becomes 0.5000 (ceiling 0.95, 53% of it)",
        "own: not measured becomes 0.1000 (no ceiling)",
        "depth: 1 becomes 2",
        "parameters: 1,000 becomes 2,000 (2.00 times)",
        "training FLOPs, ancestors' too: 100 becomes 300 (3.00 times)",
        "0-aa > 1-bb",
        "HELD            over the ceiling",
        "INCIDENT        it lied",
    ):
        assert part in shown


def test_an_undefined_improvement_and_an_unchanged_architecture_are_said():
    shown = "\n".join(lines_of(replace(PROPOSAL, improvement=None, difference={}, is_sealed=False)))
    assert "(undefined)" in shown
    assert "unchanged: it was trained further" in shown
    assert "the task has no sealed data" in shown


@pytest.mark.parametrize(("word", "answer"), [("yes", "approve"), ("Y", "approve"), ("no", "reject")])
def test_the_terminal_takes_yes_or_no_and_why_and_signs_it(signer, word, answer):
    ask, shown = typed("maybe", word, "looked at it")
    decision = TerminalApprover(signer=signer, show=shown.append, ask=ask).decide(REQUEST, PROPOSAL)
    assert (decision.answer, decision.by, decision.reason) == (answer, "ann", "looked at it")
    assert decision.is_signed_by(signer.identity.public)
    assert "'maybe': expected yes or no" in shown
    assert "proposed score" in "\n".join(shown)


@pytest.mark.parametrize("lines", [(), ("yes",)])
def test_a_terminal_that_is_closed_gives_no_answer(signer, lines):
    ask, shown = typed(*lines)
    assert TerminalApprover(signer=signer, show=shown.append, ask=ask).decide(REQUEST, PROPOSAL) is None


def test_nobody_answers_nothing():
    assert Nobody().decide(REQUEST, PROPOSAL) is None


def test_a_policy_approves_what_is_within_it_and_says_which_it_was(signer):
    policy, shown = Policy(), []
    decision = PolicyApprover(signer=signer, policy=policy, show=shown.append).decide(REQUEST, PROPOSAL)
    assert (decision.answer, decision.reason) == ("approve", f"within policy {policy.digest[:12]}")
    assert shown[-1] == "Approved by the policy"


@pytest.mark.parametrize(
    ("change", "policy", "problem"),
    [
        ({}, {"max_improvement": 0.05}, "improvement +6.0% is not within 5.0%"),
        ({"improvement": None}, {}, "improvement undefined is not within 10.0%"),
        ({"improvement": float("nan")}, {}, "is not within"),
        ({}, {"max_generation": 1}, "generation 2 is over 1"),
        ({}, {"max_params": 1999}, "2,000 parameters are over 1,999"),
        ({"held": "over"}, {}, "the ledger holds it for people: over"),
        ({"is_sealed": False}, {}, "its scores are not of sealed data"),
        ({"incident": "it lied"}, {"lifts_holds": True}, "an incident: it lied"),
    ],
)
def test_a_policy_leaves_to_people_what_is_outside_of_it(signer, change, policy, problem):
    proposal, shown = replace(PROPOSAL, **change), []
    approver = PolicyApprover(signer=signer, policy=Policy(**policy), show=shown.append)
    assert approver.decide(REQUEST, proposal) is None
    assert problem in shown[-1]


def test_a_policy_at_its_edges_approves():
    policy = Policy(max_improvement=0.06, max_generation=2, max_params=2000, lifts_holds=True)
    assert problems_for(policy, replace(PROPOSAL, held="over")) == []


def test_a_policy_file_is_read_strictly(tmp_path):
    (tmp_path / "policy.yaml").write_text("max_improvement: 0.2\n")
    assert policy_from_yaml(tmp_path / "policy.yaml") == Policy(max_improvement=0.2)
    (tmp_path / "policy.yaml").write_text("max_improvment: 0.2\n")
    with pytest.raises(DocumentError, match="max_improvment"):
        policy_from_yaml(tmp_path / "policy.yaml")


def test_the_key_of_a_storage_is_made_once_and_read_by_its_owner_alone(tmp_path):
    first = local_signer(tmp_path, "ann")
    assert local_signer(tmp_path, "ann").identity.public == first.identity.public
    (tmp_path / "approver.key").chmod(0o644)
    with pytest.raises(IdentityError, match="others may read it"):
        local_signer(tmp_path, "ann")


def test_a_user_whom_limits_could_not_name_is_local(tmp_path):
    assert local_signer(tmp_path, "user 0").name == "local"


def test_limits_that_name_nobody_get_the_approver_of_this_machine_and_others_stay(signer):
    named = with_approver(limits(), signer)
    assert named.approval.keys == {"ann": signer.identity.public}
    assert named.approval.proposer_may_approve
    other = Approval(approvers={"eve": "ab" * 32})
    assert with_approver(limits(approval=other), signer).approval == other


def test_only_whom_the_limits_name_signs_under_them(tmp_path, signer):
    own = with_approver(limits(), signer)
    found = named_signer(own, tmp_path / "approver.key")
    assert (found.name, found.identity.public) == ("ann", signer.identity.public)
    local_signer(tmp_path / "other", "eve")
    with pytest.raises(SweepError, match="of no approver whom the limits name"):
        named_signer(own, tmp_path / "other" / "approver.key")
