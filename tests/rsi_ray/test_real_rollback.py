"""`rsi-ray champion rollback` on the real ledger."""

from safety import Allow, Ledger
from tests.rsi_ray.champions import candidate, grown, open_lineage, pointer, promote


def test_a_lineage_goes_back_and_on_and_its_generations_only_rise(tmp_path, command):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    open_lineage(ledger)
    store = grown(ledger, tmp_path / "champions", 3)
    code, _ = command("champion", "rollback", "--reason", "it lies", "--by", "ann")
    assert code == 0
    assert store.champion().manifest.generation == 2
    assert [one.rolled_back for one in store.history()] == [False, False, True]
    nxt = store.stage(candidate(9))
    assert nxt.manifest.generation == 4
    assert promote(store, ledger, nxt, 0.6, 0.61) == Allow()
    assert pointer(store)["generation"] == 4
    assert command("champion", "rollback", "--reason", "all", "--to", "0")[0] == 0
    assert store.champion().state == "base"
    nxt = store.stage(candidate(10))
    assert promote(store, ledger, nxt, 0.6, 0.61).reason == (
        "lineage line: its champion scored 0.5, and 0.6 is told of it"
    )
    assert promote(store, ledger, nxt, 0.5, 0.61) == Allow()
    assert store.champion().manifest.generation == 5
    assert command("champion", "rollback", "--reason", "all", "--to", "4")[0] == 2
    ledger.close()
