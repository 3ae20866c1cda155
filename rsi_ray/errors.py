"""The tree of errors of this package.

UsageError              it can't be done as it is asked for; the message is one line
├── ArtifactStoreError  files can't be put into an artifact store, or fetched from it
├── ChampionError       a champion's version isn't there, isn't what it was, or can't take the place asked for
├── EvaluationError     an evaluation gave no numbers that count
├── RunError            a run, a trial or a ledger that was asked for isn't there
└── SweepError          a sweep can't run as it is asked for

TrainingError           one of the processes that train a candidate failed
├── GpuError            its node has a GPU that torch can't use
└── WorkerLost          it died, or can't be reached
"""


class UsageError(Exception):
    """It can't be done as it is asked for; the message is one line."""


class ArtifactStoreError(UsageError):
    """Files can't be put into an artifact store, or fetched from it."""


class ChampionError(UsageError):
    """A champion's version isn't there, isn't what it was, or can't take the place asked for."""


class SweepError(UsageError):
    """A sweep can't run as it is asked for."""


class RunError(UsageError):
    """A run, a trial or a ledger that was asked for isn't there."""


class TrainingError(RuntimeError):
    """One of the processes that train a candidate failed."""


class GpuError(TrainingError):
    """A node has a GPU that torch can't use: no fault of a candidate's."""


class WorkerLost(TrainingError):
    """One of the processes that train a candidate died, or can't be reached."""


class EvaluationError(UsageError):
    """An evaluation gave no numbers that count."""
