"""A sweep of seconds, as a file of `rsi-ray run`, and where it trained."""

from __future__ import annotations

from safety import Ledger

SMALL_SWEEP = """
name: small
trials: {trials}
ledger: {ledger}
storage: {storage}
space: {{kind: conv, stages: [1, 1], depth: [1, 1], widths: [16, 24], kernel_sizes: [3], expansions: [1]}}
task: {{kind: digits}}
training: {{epochs: 1, steps_per_epoch: 2}}
limits: {{bounds: {{max_params: 1e6, max_flops: 1e9, max_memory: 1e9}}}}
"""


def trained_at(ledger_url: str) -> set[str]:
    """Addresses of all hosts whose workers held a lease."""
    ledger = Ledger(ledger_url)
    with ledger._transaction() as connection:
        holders = connection.exec_driver_sql("SELECT holder FROM leases").scalars().all()
    ledger.close()
    return {holder.partition("@")[2] for holder in holders}
