"""Ray shell: which trials of Tune a cluster says that it runs, whoever started them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.util.state import list_actors, list_nodes

from safety.errors import ClusterUnreachable
from safety.governor_process import NAME, NAMESPACE
from safety.ungoverned import TuneActor

# the most that Ray tells at once
MOST_ACTORS = 10_000
ANSWER_SECONDS = 30
# which Tune alone sets, for the process of each trial; what a trial starts inherits it
_MARK = "PL_DISABLE_FORK"
# in the environment of what a trial starts and can't give a `__repr__`: what it would say
SAYS = "RSI_RAY_SAYS"
# what Ray Train keeps running beside its trainings, of which it runs nothing
_BESIDE = ("PlacementGroupCleaner", "_AutoscalingCoordinatorActor", "DatasetManager")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What a Ray cluster says of itself.

    Attributes:
        actors: live ones that are Tune's.
        governor: what its governor calls itself; "" where there is none.
    """

    actors: tuple[TuneActor, ...]
    governor: str


def cluster_at(address: str | None) -> Cluster:
    """Ask a cluster's API server, as no part of the cluster.

    It can't tell of what trains outside Tune, nor of a trial that hides: a job may run any process, and call
    an actor anything.

    Args:
        address: of the cluster; None for RAY_ADDRESS, or the one that runs here.

    Raises:
        ClusterUnreachable: no whole answer comes.
    """
    asked: dict[str, Any] = {"address": address, "limit": MOST_ACTORS, "timeout": ANSWER_SECONDS}
    try:
        found = list_actors(filters=[("state", "=", "ALIVE")], detail=True, **asked)
        addresses = {node.node_id: str(node.node_ip) for node in list_nodes(**asked)}
    except Exception as error:  # Ray has one for each of its parts, and those of its HTTP client
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ClusterUnreachable(f"the Ray cluster does not say what runs on it: {line}") from None
    return Cluster(
        actors=tuple(_actor(one, addresses) for one in found if _is_of_tune(one)),
        governor=_governor(found),
    )


def _is_of_tune(actor: Any) -> bool:
    return _MARK in _variables(actor) and actor.class_name not in _BESIDE


def _variables(actor: Any) -> Mapping[str, str]:
    """What was set in the environment of an actor."""
    try:
        environment = json.loads(actor.serialized_runtime_env or "{}")
    except ValueError:
        return {}
    variables = environment.get("env_vars") if isinstance(environment, Mapping) else None
    return variables if isinstance(variables, Mapping) else {}


def _actor(actor: Any, addresses: Mapping[str, str]) -> TuneActor:
    return TuneActor(
        actor=str(actor.actor_id),
        class_name=str(actor.class_name),
        says=str(actor.repr_name or _variables(actor).get(SAYS, "")),
        pid=int(actor.pid or 0),
        node=addresses.get(actor.node_id, str(actor.node_id)),
        job=str(actor.job_id),
        group=str(actor.placement_group_id or ""),
    )


def _governor(actors: Iterable[Any]) -> str:
    said = [one.repr_name for one in actors if (one.name, one.ray_namespace) == (NAME, NAMESPACE)]
    return str(said[0] or "") if said else ""
