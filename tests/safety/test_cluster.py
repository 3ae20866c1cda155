"""What a cluster says that it runs, without a Ray that runs."""

import json
from types import SimpleNamespace

import pytest

from safety.actor import NAME, NAMESPACE
from safety.cluster import SAYS, Cluster, cluster_at
from safety.errors import ClusterUnreachable
from safety.ungoverned import TuneActor

TUNES = json.dumps({"env_vars": {"PL_DISABLE_FORK": "1"}})


def actor(**said):
    """An actor as Ray's API server tells of it."""
    known = {
        "actor_id": "a1",
        "class_name": "Mine",
        "repr_name": "mine",
        "pid": 7,
        "node_id": "n1",
        "job_id": "j1",
        "placement_group_id": "g1",
        "name": "",
        "ray_namespace": "",
        "serialized_runtime_env": TUNES,
    }
    return SimpleNamespace(**{**known, **said})


GOVERNOR = {"name": NAME, "ray_namespace": NAMESPACE, "serialized_runtime_env": None}


@pytest.fixture
def told(monkeypatch):
    """Actors that the cluster tells of, and what it was asked."""
    actors, asked = [], []
    node = SimpleNamespace(node_id="n1", node_ip="10.0.0.1")
    monkeypatch.setattr("safety.cluster.list_actors", lambda **options: asked.append(options) or actors)
    monkeypatch.setattr("safety.cluster.list_nodes", lambda **options: asked.append(options) or [node])
    return SimpleNamespace(actors=actors, asked=asked)


def test_a_process_of_a_trial_is_told_with_its_host(told):
    told.actors.append(actor())
    found = TuneActor(
        actor="a1", class_name="Mine", says="mine", pid=7, node="10.0.0.1", job="j1", group="g1"
    )
    assert cluster_at("10.0.0.1:6379") == Cluster(actors=(found,), governor="")
    assert {options["address"] for options in told.asked} == {"10.0.0.1:6379"}
    assert told.asked[0]["filters"] == [("state", "=", "ALIVE")]


def test_what_ray_leaves_out_is_empty_and_a_host_that_it_does_not_know_is_its_number(told):
    told.actors.append(actor(repr_name=None, pid=None, placement_group_id=None, node_id="n2"))
    (found,) = cluster_at(None).actors
    assert (found.says, found.pid, found.group, found.node) == ("", 0, "", "n2")


@pytest.mark.parametrize(
    "environment", [None, "", "{}", "no JSON", "[]", '{"env_vars": null}', '{"env_vars": {"OTHER": "1"}}']
)
def test_an_actor_without_the_mark_of_tune_is_none_of_its_trials(told, environment):
    told.actors.append(actor(serialized_runtime_env=environment))
    assert cluster_at(None).actors == ()


def test_the_governor_is_found_by_its_name_and_namespace(told):
    told.actors += [
        actor(**{**GOVERNOR, "ray_namespace": "another", "repr_name": "a namesake"}),
        actor(**GOVERNOR, repr_name="Governor(sqlite:////x)"),
    ]
    assert cluster_at(None) == Cluster(actors=(), governor="Governor(sqlite:////x)")


def test_a_governor_that_ray_shows_nothing_of_yet_is_called_nothing(told):
    told.actors.append(actor(**GOVERNOR, repr_name=None))
    assert cluster_at(None).governor == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionError("\n refused \n at port 8265"), "refused "),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told_in_one_line(told, monkeypatch, error, line):
    def fail(**_options):
        raise error

    monkeypatch.setattr("safety.cluster.list_nodes", fail)
    with pytest.raises(ClusterUnreachable, match=f"does not say what runs on it: {line}$"):
        cluster_at(None)


@pytest.mark.parametrize("name", ["PlacementGroupCleaner", "_AutoscalingCoordinatorActor", "DatasetManager"])
def test_what_ray_train_keeps_beside_its_trainings_is_no_trial(told, name):
    told.actors.append(actor(class_name=name))
    assert cluster_at(None).actors == ()


def test_what_a_trial_starts_says_in_its_environment_which_sweep_it_works_for(told):
    variables = {"PL_DISABLE_FORK": "1", SAYS: "Governed(s/t1)"}
    told.actors.append(actor(repr_name="", serialized_runtime_env=json.dumps({"env_vars": variables})))
    (found,) = cluster_at(None).actors
    assert found.says == "Governed(s/t1)"
