"""The tree of errors of this package.

UsageError           it can't be done as it is asked for; the message is one line
├── SweepError       a sweep can't run as it is asked for
├── RunError         a run, a trial or a ledger that was asked for isn't there
└── EvaluationError  an evaluation gave no numbers that count
"""


class UsageError(Exception):
    """It can't be done as it is asked for; the message is one line."""


class SweepError(UsageError):
    """A sweep can't run as it is asked for."""


class RunError(UsageError):
    """A run, a trial or a ledger that was asked for isn't there."""


class EvaluationError(UsageError):
    """An evaluation gave no numbers that count."""
