"""Any sequence of calls, in any order, against a simple model of what the ledger must hold."""

import itertools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from safety import Allow, Claim, LeaseLost, Ledger, LedgerError, Request, Usage, audit
from safety.endings import SWEEP_SILENCE_MS
from tests import postgresql
from tests.safety.fakes import FakeClock, limits

SWEEPS = ("a", "b")
LASTING = ("train_gflop", "trials", "gpu_ms", "wall_ms")
CAPS = {"train_gflop": 40, "trials": 12, "concurrent_params": 900, "gpu_ms": 50_000, "wall_ms": 400_000}
LIMITS = limits(
    cluster={
        "train_flops": 40 * 10**9,
        "trials": 12,
        "concurrent_params": 900,
        "gpu_seconds": 50,
        "wall_seconds": 400,
    },
    sweep={"trials": 8},
)
FINAL = {"void", "settled", "forfeited"}

sizes = st.integers(0, 400)


@dataclass
class Modelled:
    """A lease as it must be; `counts` is whether the trial was not counted before."""

    sweep: str
    claim: Claim
    counts: bool = True
    state: str = "reserved"
    id: int = 0
    fence: int = 0
    deadline: int = 0
    began: int = 0


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._time = FakeClock()
        self._url = self._new_database()
        self._ledger = Ledger(self._url, self._time.clock())
        self._leases: dict[str, Modelled] = {}
        self._ended: dict[tuple[str, int], Modelled] = {}
        self._spent = dict.fromkeys(itertools.product(("cluster", *SWEEPS), CAPS), 0)
        self._state = dict.fromkeys(SWEEPS, "open")
        self._killed = False
        self._seen = dict.fromkeys(SWEEPS, self._time.monotonic)
        self._spent_before: dict[tuple[str, str], int] = {}

    def _new_database(self):
        return f"sqlite:///{Path(self._folder.name) / 'ledger.db'}"

    def teardown(self):
        self._ledger.close()
        self._folder.cleanup()

    @initialize()
    def open_both(self):
        for name in SWEEPS:
            self._ledger.open_sweep(name, LIMITS)

    def _held(self, scope, resource):
        return sum(
            self._charges(lease)[resource]
            for lease in self._leases.values()
            if lease.state not in FINAL and scope in ("cluster", lease.sweep)
        )

    def _told(self, sweep):
        return "killed" if self._killed else self._state[sweep]

    def _charges(self, lease):
        return {**lease.claim.charges(), "trials": int(lease.counts)}

    def _fits(self, sweep, charges):
        in_cluster = all(
            self._spent["cluster", r] + self._held("cluster", r) + charges[r] <= CAPS[r] for r in CAPS
        )
        spent, held = self._spent[sweep, "trials"], self._held(sweep, "trials")
        return in_cluster and spent + held + charges["trials"] <= 8

    def _end(self, lease, state, charges):
        lease.state = state
        for scope, resource in itertools.product(("cluster", lease.sweep), LASTING):
            self._spent[scope, resource] += min(charges.get(resource, 0), self._charges(lease)[resource])

    def _of_state(self, data, *states):
        keys = sorted(key for key, lease in self._leases.items() if lease.state in states)
        return data.draw(st.sampled_from(keys)) if keys else None

    @rule(sweep=st.sampled_from(SWEEPS), params=sizes, gflop=st.integers(0, 15), wall=st.integers(0, 90_000))
    def reserve(self, sweep, params, gflop, wall):
        claim = Claim(
            params=params, forward_flops=1, memory_bytes=1, train_flops=gflop * 10**9, wall_ms=wall,
            gpu_ms=wall // 10, reports=4,
        )  # fmt: skip
        key = f"{sweep}/{len(self._leases)}"
        verdict = self._ledger.reserve(Request(key=key, digest="d", sweep=sweep, claim=claim))
        fits = self._fits(sweep, claim.charges())
        assert isinstance(verdict, Allow) == (fits and self._told(sweep) == "open"), verdict
        if isinstance(verdict, Allow):
            self._leases[key] = Modelled(sweep=sweep, claim=claim, id=self._ledger.lease(key).id)

    @rule(data=st.data(), params=sizes, same=st.booleans())
    def readmit(self, data, params, same):
        key = self._of_state(data, "reserved", "active", "revoked", *FINAL)
        if key is None:
            return
        lease = self._leases[key]
        claim = lease.claim if same else replace(lease.claim, params=params)
        open_ = self._told(lease.sweep) == "open"
        refused = self._ledger.lease(key).rule not in ("", "killed")
        may = open_ and not refused and lease.state not in ("active", "revoked")
        again = lease.state == "reserved" and claim == lease.claim
        counts = lease.counts if lease.state in ("reserved", "void") else False
        if may and lease.state == "reserved" and not again:
            lease.state = "void"
        charges = {**claim.charges(), "trials": int(counts)}
        fits = again or self._fits(lease.sweep, charges)
        asked = Request(key=key, digest="d", sweep=lease.sweep, claim=claim)
        verdict = self._ledger.readmit(asked)
        assert isinstance(verdict, Allow) == (may and fits), verdict
        if isinstance(verdict, Allow) and not again:
            self._ended[key, lease.id] = lease
            newest = self._ledger.lease(key)
            self._leases[key] = Modelled(sweep=lease.sweep, claim=claim, counts=counts, id=newest.id)

    @rule(data=st.data())
    def activate(self, data):
        key = self._of_state(data, "reserved", "active", *FINAL)
        if key is None:
            return
        lease, now = self._leases[key], self._time.monotonic
        may = lease.state == "reserved" or (lease.state == "active" and now <= lease.deadline)
        if may and self._told(lease.sweep) == "open":
            grant = self._ledger.activate(key, "d", "w")
            if lease.state == "reserved":
                lease.state, lease.began = "active", now
            lease.fence, lease.deadline = grant.fence, now + 15_000
        else:
            self._refused(lambda: self._ledger.activate(key, "d", "w"))

    def _refused(self, call):
        try:
            call()
        except LeaseLost:
            return
        raise AssertionError("expected LeaseLost")

    @rule(data=st.data(), stale=st.booleans())
    def renew(self, data, stale):
        key = self._of_state(data, "active", "revoked", *FINAL)
        if key is None:
            return
        lease, now = self._leases[key], self._time.monotonic
        in_time = lease.state == "active" and now <= lease.deadline
        if in_time and not stale and self._told(lease.sweep) == "open":
            assert self._ledger.renew(lease.id, lease.fence) == 15_000
            lease.deadline = now + 15_000
        else:
            self._refused(lambda: self._ledger.renew(lease.id, lease.fence + stale))

    @rule(data=st.data(), gflop=st.integers(0, 16), wall=st.integers(-5, 95_000), reports=st.integers(0, 4))
    def settle(self, data, gflop, wall, reports):
        key = self._of_state(data, "active", "revoked")
        if key is None:
            return
        lease = self._leases[key]
        usage = Usage(train_flops=gflop * 10**9, wall_ms=wall, reports=reports)
        if self._time.monotonic > lease.deadline + 5_000:  # too late: it is forfeited instead
            self._refused(lambda: self._ledger.settle(lease.id, lease.fence, usage))
            self._end(lease, "forfeited", lease.claim.charges())
            lease.fence += 1
            return
        self._ledger.settle(lease.id, lease.fence, usage)
        charges, held = usage.charges(lease.claim), lease.claim.charges()
        charges["trials"] = int(lease.counts)
        self._end(lease, "settled", charges)
        if any(charges[r] > held[r] for r in LASTING):
            self._state[lease.sweep] = "frozen"

    @rule(data=st.data())
    def settle_what_has_ended(self, data):
        key = self._of_state(data, "forfeited", "void", "reserved")
        if key:
            self._refused(lambda: self._ledger.settle(self._leases[key].id, self._leases[key].fence, Usage()))

    @rule(data=st.data())
    def void(self, data):
        key = self._of_state(data, "reserved", "active", *FINAL)
        if key:
            self._ledger.void(key, "why")
            if self._leases[key].state == "reserved":
                self._leases[key].state = "void"

    @rule(data=st.data())
    def revoke(self, data):
        key = self._of_state(data, "reserved", "active", *FINAL)
        if key:
            self._ledger.revoke(key, "rule", "why")
            lease = self._leases[key]
            lease.state = {"reserved": "void", "active": "revoked"}.get(lease.state, lease.state)

    @rule(ms=st.sampled_from([1, 5_000, 15_000, 20_000, 20_001, SWEEP_SILENCE_MS]))
    def time_passes(self, ms):
        self._time.pass_ms(ms)

    @rule(sweep=st.sampled_from(SWEEPS))
    def pulse(self, sweep):
        assert self._ledger.pulse(sweep) == self._told(sweep)
        self._seen[sweep] = self._time.monotonic

    @rule()
    def reap(self):
        now, ended = self._time.monotonic, 0
        for lease in self._leases.values():
            if lease.state == "reserved" and now > self._seen[lease.sweep] + SWEEP_SILENCE_MS:
                lease.state, ended = "void", ended + 1
            elif lease.state in ("active", "revoked") and now > lease.deadline + 5_000:
                self._end(lease, "forfeited", lease.claim.charges())
                ended += 1
                lease.fence += 1
        assert self._ledger.reap() == ended

    @rule(sweep=st.sampled_from(SWEEPS))
    @precondition(lambda self: len(self._leases) > 6)
    def close(self, sweep):
        for lease in self._leases.values():
            if lease.sweep != sweep or lease.state in FINAL:
                continue
            if lease.state == "reserved":
                lease.state = "void"
                continue
            wall = min(self._time.monotonic - lease.began, lease.claim.wall_ms)
            gpu = -(-lease.claim.gpu_ms * wall // max(1, lease.claim.wall_ms))
            usage = Usage(wall_ms=wall, gpu_ms=gpu, reports=1)
            self._end(lease, "settled", usage.charges(lease.claim))
        self._ledger.close_sweep(sweep, {})
        if self._state[sweep] == "open":
            self._state[sweep] = "closed"

    @rule(sweep=st.sampled_from(SWEEPS))
    def open_again(self, sweep):
        if self._told(sweep) in ("frozen", "killed"):
            try:
                self._ledger.open_sweep(sweep, LIMITS)
            except LedgerError:
                return
            raise AssertionError("a frozen or killed sweep was opened")
        for lease in self._leases.values():
            if lease.sweep == sweep and lease.state == "reserved":
                lease.state = "void"
        self._ledger.open_sweep(sweep, LIMITS)
        self._state[sweep], self._seen[sweep] = "open", self._time.monotonic

    @rule()
    @precondition(lambda self: len(self._leases) > 3)
    def kill(self):
        held = [lease for lease in self._leases.values() if lease.state not in FINAL]
        for lease in held:
            lease.state = {"reserved": "void", "active": "revoked"}.get(lease.state, lease.state)
        assert self._ledger.kill("why", "who") == len(held)
        self._killed = True

    @rule()
    def unkill(self):
        assert self._ledger.unkill("why", "who") == self._killed
        self._killed = False

    @rule()
    def open_the_file_again(self):
        self._ledger.close()
        self._ledger = Ledger(self._url, self._time.clock())

    @invariant()
    def the_budgets_are_those_of_the_model(self):
        for sweep in SWEEPS:
            for budget in self._ledger.budgets(sweep):
                scope = budget.scope.removeprefix("sweep:")
                place = scope, budget.resource
                assert budget.held == self._held(*place)
                assert budget.spent == self._spent[place]
                assert budget.spent + budget.held <= budget.cap
                assert budget.spent >= self._spent_before.get(place, 0)
                self._spent_before[place] = budget.spent

    @invariant()
    def the_leases_are_those_of_the_model(self):
        for key, lease in self._leases.items():
            found = self._ledger.lease(key)
            assert (found.state, found.fence) == (lease.state, lease.fence)
        assert all(lease.state in FINAL for lease in self._ended.values())

    @invariant()
    def the_audit_follows(self):
        assert audit.verify(self._ledger.audit()) is None


class PostgresqlMachine(LedgerMachine):
    """The same on the server that the test below has started."""

    server = ""
    databases = itertools.count(1)

    def _new_database(self):
        return postgresql.new_schema(self.server, f"machine_{next(self.databases)}")


TestLedger = LedgerMachine.TestCase
# an example takes many steps
MANY = settings.default.max_examples // 5
TestLedger.settings = settings(
    max_examples=MANY, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)


@pytest.mark.postgresql
class TestLedgerOnPostgresql(PostgresqlMachine.TestCase):
    settings = settings(TestLedger.settings, max_examples=8)

    @pytest.fixture(autouse=True)
    def _server(self, postgresql_server):
        PostgresqlMachine.server = postgresql_server
