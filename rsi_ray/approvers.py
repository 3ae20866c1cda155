"""Who decides of a promotion while a loop runs: a person at the terminal, a policy file, or nobody here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BeforeValidator, Field

from rsi_ray.errors import SweepError
from rsi_ray.proposal import Proposal, lines_of
from safety import Approval, Decision, Limits, StrictModel, read_yaml, validate
from safety.approval import Answer, decide
from safety.approval import Request as ApprovalRequest
from safety.document import whole_number
from safety.identity import Identity, identity_of, make_identity

KEY_FILE = "approver.key"
LOCAL = "local"
YES, NO = ("yes", "y"), ("no", "n")


class Approver(Protocol):
    """Decides, or leaves it to others."""

    def decide(self, request: ApprovalRequest, proposal: Proposal) -> Decision | None:
        """A signed decision; None for no answer."""
        ...


class Nobody:
    """Leaves every request to `rsi-ray approvals`."""

    def decide(self, request: ApprovalRequest, proposal: Proposal) -> None:
        """No answer."""
        del request, proposal


@dataclass(frozen=True, kw_only=True)
class Signer:
    """An approver's name in the limits, and its key."""

    name: str
    identity: Identity

    def sign(self, request: ApprovalRequest, answer: Answer, reason: str) -> Decision:
        """A decision that the ledger takes."""
        return decide(request.digest, answer, self.name, reason, self.identity)


@dataclass(frozen=True, kw_only=True)
class TerminalApprover:
    """Shows a proposal, and asks for yes or no and why.

    Attributes:
        signer: signs what is answered.
        show: prints a line.
        ask: prints a question and reads a line; raises EOFError where nobody answers.
    """

    signer: Signer
    show: Callable[[str], None]
    ask: Callable[[str], str]

    def decide(self, request: ApprovalRequest, proposal: Proposal) -> Decision | None:
        """The answer as it was typed; None where the terminal is closed."""
        for line in lines_of(proposal):
            self.show(line)
        try:
            answer = self._answer()
            reason = self.ask("Why? ").strip() or "answered on the terminal"
        except EOFError:
            return None
        return self.signer.sign(request, answer, reason)

    def _answer(self) -> Answer:
        while True:
            typed = self.ask("Approve modification? (yes/no): ").strip().lower()
            if typed in YES:
                return "approve"
            if typed in NO:
                return "reject"
            self.show(f"{typed!r:.40}: expected yes or no")


class Policy(StrictModel):
    """What may be promoted while nobody watches; what is outside of it waits for people."""

    max_improvement: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="relative improvement over the champion"
    )
    max_generation: Annotated[int, BeforeValidator(whole_number), Field(ge=1)] = Field(
        default=10, description="generation up to which it approves"
    )
    max_params: Annotated[int, BeforeValidator(whole_number), Field(ge=1)] | None = Field(
        default=None, description="parameters of the new champion"
    )
    lifts_holds: bool = Field(
        default=False, description="whether it approves what the ledger holds for people"
    )
    needs_sealed_data: bool = Field(
        default=True, description="whether the scores must be of data that no search has seen"
    )

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def policy_from_yaml(path: Path) -> Policy:
    """Read a policy's file.

    Raises:
        DocumentError: one line with the file, the line, the field and what was expected.
    """
    return validate(Policy, read_yaml(path))


def problems_for(policy: Policy, proposal: Proposal) -> list[str]:
    """Why a policy leaves a proposal to people; nothing where it approves it."""
    rate, params = proposal.improvement, proposal.after.params
    problems = []
    if rate is None or not rate <= policy.max_improvement:
        shown = "undefined" if rate is None else f"{rate:+.1%}"
        problems.append(f"improvement {shown} is not within {policy.max_improvement:.1%}")
    if not proposal.generation <= policy.max_generation:
        problems.append(f"generation {proposal.generation} is over {policy.max_generation}")
    if policy.max_params is not None and not params <= policy.max_params:
        problems.append(f"{params:,} parameters are over {policy.max_params:,}")
    if proposal.held and not policy.lifts_holds:
        problems.append(f"the ledger holds it for people: {proposal.held}")
    if not proposal.is_sealed and policy.needs_sealed_data:
        problems.append("its scores are not of sealed data")
    if proposal.incident:
        problems.append(f"an incident: {proposal.incident}")
    return problems


@dataclass(frozen=True, kw_only=True)
class PolicyApprover:
    """Approves what is within a policy, and leaves the rest to people; its decisions say so."""

    signer: Signer
    policy: Policy
    show: Callable[[str], None]

    def decide(self, request: ApprovalRequest, proposal: Proposal) -> Decision | None:
        """Approval within the policy; no answer outside of it."""
        for line in lines_of(proposal):
            self.show(line)
        problems = problems_for(self.policy, proposal)
        if problems:
            self.show(f"The policy leaves it to people: {'; '.join(problems)}")
            return None
        self.show("Approved by the policy")
        return self.signer.sign(request, "approve", f"within policy {self.policy.digest[:12]}")


def local_signer(folder: Path, name: str) -> Signer:
    """Who decides where the limits name nobody: a key of this storage's own, made where there is none.

    Raises:
        IdentityError: others may read it, or it is no such key.
    """
    path = folder / KEY_FILE
    folder.mkdir(parents=True, exist_ok=True)
    identity = identity_of(path) if path.exists() else make_identity(path)
    return Signer(name=name if re.fullmatch(r"[\w.@+-]{1,100}", name) else LOCAL, identity=identity)


def named_signer(limits: Limits, key: Path) -> Signer:
    """The approver of these limits whose key lies in a file.

    Raises:
        SweepError: the limits name nobody with this key.
        IdentityError: it is no such key.
    """
    identity = identity_of(key)
    for name, public in limits.approval.keys.items():
        if public == identity.public:
            return Signer(name=name, identity=identity)
    raise SweepError(f"key {key}: of no approver whom the limits name; expected one of `approval.approvers`")


def with_approver(limits: Limits, signer: Signer) -> Limits:
    """Limits that name an approver, where they named none: who runs it on their own machine decides."""
    if limits.approval.is_named:
        return limits
    approvers = {signer.name: signer.identity.public}
    hours = limits.approval.hours
    approval = Approval(approvers=approvers, quorum=1, hours=hours, proposer_may_approve=True)
    return limits.model_copy(update={"approval": approval})
