"""Ray shell: what a cluster has, and what it would have with every node that its autoscaler may start."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray
import yaml

CONFIG = "--autoscaling-config="


def most_of_cluster() -> dict[str, float]:
    """Resources by Ray's names, of each the most there may be; what is there where nobody knows more.

    Ray's own autoscalers tell Ray nothing of this, others may. On the head, where drivers run, theirs is a
    process that names its file; on Kubernetes it is in a container of its own.
    """
    found: dict[str, float] = ray.cluster_resources()
    for known in (_told_to_ray, lambda: at_most(_file_of_autoscaler())):
        with suppress(Exception):  # private parts of Ray, and a file of any age: nothing is known, then
            for name, most in known().items():
                found[name] = max(found.get(name, 0.0), most)
    return found


def _told_to_ray() -> Mapping[str, float]:
    told: Mapping[str, float] = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    # no limit is told as the largest number
    return {name: most for name, most in told.items() if most < sys.maxsize}


def _file_of_autoscaler() -> Mapping[str, Any]:
    """What this cluster's autoscaler was started with; nothing where it runs elsewhere, or there is none."""
    mine = f"--gcs-address={ray.get_runtime_context().gcs_address}"
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        files = [word.removeprefix(CONFIG) for word in words if word.startswith(CONFIG)]
        if files and mine in words:
            found: Mapping[str, Any] = yaml.safe_load(Path(files[0]).expanduser().read_text())
            return found
    return {}


def at_most(config: Mapping[str, Any]) -> dict[str, float]:
    """Resources of each name, if the nodes that are started are those with the most of it.

    Args:
        config: file of an autoscaler, as `ray up` takes it and completes it.
    """
    limit, head = config.get("max_workers") or 0, config.get("head_node_type")
    types = config.get("available_node_types") or {}
    given = {name: kind.get("resources") or {} for name, kind in types.items()}
    counts = {name: kind.get("max_workers", limit) for name, kind in types.items() if name != head}
    found = {}
    for resource in {resource for each in given.values() for resource in each}:
        most, left = float(given.get(head, {}).get(resource, 0)), limit
        for name in sorted(counts, key=lambda one: given[one].get(resource, 0), reverse=True):
            nodes = min(left, counts[name])
            most, left = most + nodes * given[name].get(resource, 0), left - nodes
        found[resource] = most
    return found
