"""The tree of errors of this package.

SafetyError
├── AlertError             a sink did not take an alert
├── ArtifactError          an artifact's file can't be read, or is none
├── CheckpointError        signed ends of the audit can't be read
├── ClusterUnreachable     a Ray cluster doesn't say what runs on it
├── DocumentError          a file or mapping from outside is not what was expected (a usage error)
├── LedgerError            the ledger can't be opened, read or written
│   ├── ApprovalMissing    it takes an approval, which is asked for and not given yet
│   ├── ApprovalRefused    a decision doesn't count: forged, too late, by the proposer, by no approver
│   ├── KeyReused          an idempotency key came again with another request
│   ├── LeaseLost          the lease is over for this holder: fenced, revoked, expired or frozen
│   │   ├── LeaseDenied    a report of its own ended it: its process may end as it should until its deadline
│   │   └── LeaseSettled   it ended as it should: somebody has settled it
│   ├── LedgerUnavailable  its database is locked, read-only, full or gone: the same question may do later
│   ├── LedgerUrlError     what should say where a ledger is doesn't (a usage error)
│   └── LooserLimits       a cap above the one in force was asked for; that takes an approval
├── GovernorUnreachable    no answer from the governor; silence denies
├── IdentityError          a key can't be used, or an answer isn't signed by the one that was pinned
├── PriceError             what is told of a trial's cost can't make a claim (a usage error)
└── SearchExhausted        nothing that may be proposed is left
"""


class SafetyError(Exception):
    """Base of every error that this package raises on purpose."""


class AlertError(SafetyError):
    """A sink did not take an alert."""


class ArtifactError(SafetyError):
    """An artifact's file that can't be read, or a link to one."""


class CheckpointError(SafetyError):
    """What was signed of the audit can't be read."""


class ClusterUnreachable(SafetyError):
    """A Ray cluster gave no answer, or no whole one."""


class DocumentError(SafetyError):
    """A document from outside is refused; the message is one line: where, what, what was expected."""


class LedgerError(SafetyError):
    """The ledger can't do what was asked; nothing was changed."""


class ApprovalMissing(LedgerError):
    """It takes an approval; people are asked for it."""


class ApprovalRefused(LedgerError):
    """A decision that doesn't count; it is in the audit."""


class KeyReused(LedgerError):
    """The same idempotency key with another request."""


class LeaseLost(LedgerError):
    """The lease is over for this holder; it must compute nothing more."""


class LeaseDenied(LeaseLost):
    """A report under the lease was denied: it is renewed no more, and what was computed may be saved."""


class LeaseSettled(LeaseLost):
    """The lease was settled, and its process is free for another one."""


class LedgerUnavailable(LedgerError):
    """The database doesn't answer now; nothing was changed."""


class LedgerUrlError(LedgerError):
    """What should be the URL of a ledger's database is none."""


class LooserLimits(LedgerError):
    """A cap above the one in force was asked for."""


class GovernorUnreachable(SafetyError):
    """The governor gave no answer."""


class IdentityError(SafetyError):
    """A key that can't be used, or an answer that its holder did not sign."""


class PriceError(SafetyError, ValueError):
    """What people tell of a trial's cost can't make a claim; the message says what was expected."""


class SearchExhausted(SafetyError):
    """No proposal that the limits admit is left; the message says why."""
