"""Durable admissions per second, and how long each waits, with 1, 8 and 64 clients; what a long ledger costs.

`python -m bench.governor [--postgresql URL] [--seconds N] [--rows N] [--actor]`; the ledger lies in
`--folder`, whose disk is what is
measured. Clients are threads that ask, wait for the answer and ask again; with
`--actor` they ask the governor's actor on a real Ray. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import ray
import sqlalchemy as sa

from safety import Bounds, Claim, Governor, Ledger, Limits, Request, Usage, schema
from safety.actor import connect
from safety.group_commit import GroupCommit

LIMITS = Limits(bounds=Bounds(max_params=1000, max_flops=1000, max_memory=1000))
CLAIM = Claim(params=1, forward_flops=1, memory_bytes=1, train_flops=10**9, wall_ms=1, reports=1)
CLIENTS = (1, 8, 64)
SHORT, LONG = 1_000, 1_000_000

Ask = Callable[[str, Any], object]
_keys = count()


def request() -> Request:
    """Another trial."""
    return Request(key=f"s/{next(_keys)}", digest="d", sweep="s", claim=CLAIM)


def latencies(ask: Ask, clients: int, seconds: float) -> list[float]:
    """Seconds of each admission, of clients that ask one after the other for a while."""
    found: list[float] = []
    until = time.perf_counter() + seconds

    def client() -> None:
        while (began := time.perf_counter()) < until:
            ask("admit", request())
            found.append(time.perf_counter() - began)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)


def rows(database: str, ask: Ask, seconds: float) -> Iterator[dict[str, object]]:
    """A row for each number of clients."""
    latencies(ask, 8, 0.5)
    for clients in CLIENTS:
        began = time.perf_counter()
        found = latencies(ask, clients, seconds)
        rate = len(found) / (time.perf_counter() - began)
        p50, p99 = (found[int(len(found) * part)] * 1000 for part in (0.5, 0.99))
        row: dict[str, object] = {"database": database, "clients": clients, "admissions_per_s": round(rate)}
        row |= {"p50_ms": round(p50, 1), "p99_ms": round(p99, 1)}
        print(row, flush=True)
        yield row


@contextmanager
def grouped(url: str) -> Iterator[Ask]:
    """The governor of a ledger, in this process."""
    ledger = Ledger(url)
    ledger.open_sweep("s", LIMITS)
    group = GroupCommit(ledger)
    try:
        yield lambda method, argument: group.ask(method, (argument,)).result()
    finally:
        group.close()
        ledger.close()


@contextmanager
def by_actor(url: str) -> Iterator[Ask]:
    """The governor's actor on a Ray of its own."""
    ray.init(address="local", num_cpus=2, log_to_driver=False)
    try:
        client = connect(url)
        client.open_sweep("s", LIMITS)
        yield lambda method, argument: getattr(client, method)(argument)
    finally:
        ray.shutdown()


def event_us(folder: Path, length: int, events: int = 500) -> dict[str, float]:
    """Microseconds of each kind of event on a ledger of so many rows, without the disk's own time."""
    ledger = Ledger(f"sqlite:///{folder / f'{length}.db'}")
    ledger.open_sweep("s", LIMITS)
    _fill(ledger, length)
    governor, spent = Governor(ledger), dict.fromkeys(("admit", "activate", "renew", "settle"), 0.0)
    with ledger.together():  # one commit for all of them
        for _ in range(events):
            asked, began = request(), time.perf_counter()
            governor.admit(asked)
            admitted = time.perf_counter()
            grant = governor.activate(asked.key, "d", "w", None)
            active = time.perf_counter()
            governor.renew(grant.lease, grant.fence)
            renewed = time.perf_counter()
            governor.settle(grant.lease, grant.fence, Usage(reports=1))
            times = (began, admitted, active, renewed, time.perf_counter())
            for name, start, end in zip(spent, times[:-1], times[1:], strict=True):
                spent[name] += end - start
    ledger.close()
    return {name: round(seconds / events * 1e6, 1) for name, seconds in spent.items()}


def _fill(ledger: Ledger, length: int) -> None:
    """Settled leases and rows of the audit, written past the ledger: it would take an hour."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {length}) "
    lease = "'x/' || i, 'x/' || i, 'd', 's', '{}', 'settled', 1, 'w', 1, 1, 'b', '', '', 1, '', '{}'"
    columns = ", ".join(column.name for column in schema.leases.columns if column.name != "id")
    with ledger._transactions.one() as connection:
        first = connection.scalar(sa.select(sa.func.max(schema.audit.c.seq)))
        connection.exec_driver_sql(f"INSERT INTO leases ({columns}) {numbers} SELECT {lease} FROM n")
        row = f"{first} + i, i, 'settle', 's', 'x/' || i, '', '{{}}', 'h'"
        connection.exec_driver_sql(f"INSERT INTO audit {numbers} SELECT {row} FROM n")


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgresql", help="URL of an empty database, by psycopg")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row")
    parser.add_argument("--rows", type=int, default=LONG, help="of the long ledger")
    parser.add_argument("--actor", action="store_true", help="ask the governor's actor, too")
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made).resolve()
        with grouped(f"sqlite:///{folder / 'ledger.db'}") as ask:
            found += rows("sqlite", ask, options.seconds)
        if options.postgresql:
            with grouped(options.postgresql) as ask:
                found += rows("postgresql", ask, options.seconds)
        if options.actor:
            with by_actor(f"sqlite:///{folder / 'actor.db'}") as ask:
                found += rows("sqlite, by the actor", ask, options.seconds)
        lengths = {str(length): event_us(folder, length) for length in (SHORT, options.rows)}
    print(json.dumps({"rows": found, "event_us": lengths}))


if __name__ == "__main__":
    main()
