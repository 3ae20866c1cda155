"""The ledger's tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()

# a STRICT table knows INTEGER, which is 64 bits wide there
Int64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# and REAL, which is 64 bits wide there and 32 elsewhere
Float64: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")


def _table(name: str, *columns: Any) -> sa.Table:
    # STRICT: in another SQLite table an int64 overflow becomes a float
    return sa.Table(name, metadata, *columns, sqlite_strict=True)


def _state(*states: str) -> sa.CheckConstraint:
    return sa.CheckConstraint("state IN ({})".format(", ".join(f"'{state}'" for state in states)))


policies = _table(
    "policies",
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("limits", sa.Text, nullable=False),
)

# limits that bind every sweep, each version tighter than the one before
limit_versions = _table(
    "limit_versions",
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("limits", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("public", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
)

sweeps = _table(
    "sweeps",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("policy", sa.Text, sa.ForeignKey("policies.digest"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("seen_ms", Int64, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
    # who has opened it last
    sa.Column("driver", sa.Text, nullable=False, default=""),
    # sweeps whose champions follow one another
    sa.Column("lineage", sa.Text, nullable=False, index=True),
    _state("open", "frozen", "closed"),
)

# a lineage that was shut down: no sweep of it is opened any more
stopped_lineages = _table(
    "stopped_lineages",
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
)

promotions = _table(
    "promotions",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, unique=True, nullable=False),
    sa.Column("lineage", sa.Text, nullable=False, index=True),
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("old", Float64, nullable=False),
    sa.Column("new", Float64, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    # the champion; NULL where none was told
    sa.Column("artifact", sa.Text),
    sa.Column("parent", sa.Text),
    sa.Column("generation", Int64),
    sa.Column("evidence", sa.Text),
    # GFLOP of its training and its ancestors', rounded up: FLOPs are beyond 64 bits
    sa.Column("train_gflop", Int64),
)

# what evaluators found, each under its own lease
evaluations = _table(
    "evaluations",
    sa.Column("lineage", sa.Text, primary_key=True),
    # SHA-256 of all that one says of a candidate
    sa.Column("record", sa.Text, primary_key=True),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("weights", sa.Text, nullable=False),
    sa.Column("score", Float64, nullable=False),
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
)

# what each lineage's base scores, as its first promotion told it
bases = _table(
    "bases",
    sa.Column("lineage", sa.Text, primary_key=True),
    sa.Column("score", Float64, nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
)

# champions that were taken back: after the promotion `after` the lineage was at the promotion `to`; 0 is what
# it began with
rollbacks = _table(
    "rollbacks",
    sa.Column("id", Int64, primary_key=True),
    sa.Column("lineage", sa.Text, nullable=False, index=True),
    sa.Column("to", Int64, nullable=False),
    sa.Column("after", Int64, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
)

# emergency shutdowns of lineages
incidents = _table(
    "incidents",
    sa.Column("id", Int64, primary_key=True),
    sa.Column("lineage", sa.Text, nullable=False, index=True),
    # that ran away, or one of the lineage
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    # hash of its row in the audit
    sa.Column("digest", sa.Text, nullable=False),
    # who could approve its release then: JSON
    sa.Column("approval", sa.Text, nullable=False),
    # the promotion that was the last known safe one, 0 for what the lineage began with
    sa.Column("safe", Int64, nullable=False),
    # the newest promotion that people judged when they released it
    sa.Column("cleared", Int64, nullable=False, default=0),
)

# each step of a shutdown is taken once
incident_steps = _table(
    "incident_steps",
    sa.Column("incident", Int64, sa.ForeignKey("incidents.id"), primary_key=True),
    sa.Column("step", sa.Text, primary_key=True),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("told", sa.Text, nullable=False),
)

# sweeps that a shutdown froze, and nothing else: they are closed when it is released
incident_sweeps = _table(
    "incident_sweeps",
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), primary_key=True),
    sa.Column("incident", Int64, sa.ForeignKey("incidents.id"), nullable=False),
)

# `target` is the cap that the limits name. `cap` is it, or what is out already where the limits were
# tightened below that; so that spent + held <= cap can be a CHECK at every moment.
budgets = _table(
    "budgets",
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("resource", sa.Text, primary_key=True),
    sa.Column("target", Int64, nullable=False),
    sa.Column("cap", Int64, nullable=False),
    sa.Column("held", Int64, nullable=False, default=0),
    sa.Column("spent", Int64, nullable=False, default=0),
    sa.Column("overrun", Int64, nullable=False, default=0),
    sa.CheckConstraint("held >= 0 AND spent >= 0 AND overrun >= 0", name="not_negative"),
    sa.CheckConstraint("spent + held <= cap AND target <= cap", name="within_cap"),
)

leases = _table(
    "leases",
    sa.Column("id", Int64, primary_key=True),
    sa.Column("key", sa.Text, unique=True, nullable=False),
    # the key as plugins and workers know it: every attempt at a trial has one of its own
    sa.Column("trial", sa.Text, nullable=False, index=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), nullable=False, index=True),
    sa.Column("claim", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("fence", Int64, nullable=False, default=0),
    sa.Column("holder", sa.Text, nullable=False, default=""),
    sa.Column("deadline_ms", Int64, nullable=False, default=0),
    sa.Column("began_ms", Int64, nullable=False, default=0),
    sa.Column("boot", sa.Text, nullable=False, default=""),
    sa.Column("rule", sa.Text, nullable=False, default=""),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    # whether this attempt counts as a trial: 1, or 0 where an earlier one does
    sa.Column("trials", Int64, nullable=False),
    # what earlier attempts were charged beyond what they can have computed, as far as it isn't used up: JSON
    sa.Column("credit", sa.Text, nullable=False, default=""),
    # the most that its reports have told of its use: JSON
    sa.Column("told", sa.Text, nullable=False, default=""),
    # what it was charged in the end, by resource: JSON
    sa.Column("used", sa.Text, nullable=False, default=""),
    _state("reserved", "active", "revoked", "void", "settled", "forfeited"),
    sa.Index("leases_by_deadline", "state", "deadline_ms"),
)

# how near each trial has come to a capability ceiling
warnings = _table(
    "warnings",
    sa.Column("trial", sa.Text, primary_key=True),
    sa.Column("domain", sa.Text, primary_key=True),
    sa.Column("sweep", sa.Text, sa.ForeignKey("sweeps.name"), nullable=False, index=True),
    sa.Column("score", Float64, nullable=False),
    sa.Column("ceiling", Float64, nullable=False),
    sa.Column("level", Int64, nullable=False),
)

# the kill switch: thrown where there is a row
latch = _table(
    "latch",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
    # who could approve that it is lifted, as it was thrown: JSON
    sa.Column("approval", sa.Text, nullable=False),
    sa.CheckConstraint("id = 1", name="one_latch"),
)

drills = _table(
    "drills",
    sa.Column("id", Int64, primary_key=True),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("target_ms", Int64, nullable=False),
    # how it failed: "" where it did not
    sa.Column("missed", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
)

# what people are asked; `used_for` names what its approval was used up by, once, and `rule` and `reason`
# why it can be approved no more, whoever the approvers become
approval_requests = _table(
    "approval_requests",
    sa.Column("id", Int64, primary_key=True),
    sa.Column("digest", sa.Text, unique=True, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("parent", sa.Text, nullable=False),
    sa.Column("generation", Int64, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("train_gflop", sa.Text, nullable=False),
    sa.Column("sweep", sa.Text, nullable=False),
    sa.Column("lifts", sa.Text, nullable=False),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("expires_ms", Int64, nullable=False),
    sa.Column("used_for", sa.Text, nullable=False, default=""),
    sa.Column("rule", sa.Text, nullable=False, default=""),
    sa.Column("reason", sa.Text, nullable=False, default=""),
)

# each approver decides once, and may take an approval back
approval_decisions = _table(
    "approval_decisions",
    sa.Column("request", sa.Text, sa.ForeignKey("approval_requests.digest"), primary_key=True),
    sa.Column("by", sa.Text, primary_key=True),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("public", sa.Text, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
)

audit = _table(
    "audit",
    sa.Column("seq", Int64, primary_key=True, autoincrement=False),
    sa.Column("at_ms", Int64, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("sweep", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
