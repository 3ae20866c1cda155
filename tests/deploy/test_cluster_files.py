"""The files that make clusters say what they must, by Ray's own schema and in their own words."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from bench.hosts import ROOT

CLOUDS = ["cluster.yaml", "deploy/gcp.yaml"]
FILES = [*CLOUDS, "deploy/onpremises.yaml"]
KUBERAY = ROOT / "deploy" / "kuberay"


def told(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def starts(commands: list[str]) -> str:
    (only,) = [command for command in commands if "ray start" in command]
    return only


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_ray_takes_the_file(name: str):
    validate_config(prepare_config(told(name)))


def test_the_dashboard_is_on_loopback_and_no_address_is_public(name: str):
    assert "--dashboard-host=127.0.0.1" in starts(told(name)["head_start_ray_commands"])
    assert "0.0.0.0" not in (ROOT / name).read_text()


def test_every_node_asks_for_the_token_which_is_a_private_file_and_not_in_this_one(name: str):
    config = told(name)
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in starts(commands)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token" in config["initialization_commands"]
    assert "RAY_AUTH_TOKEN" not in (ROOT / name).read_text()


def test_this_project_is_installed_from_its_wheel_with_the_tested_versions(name: str):
    config = told(name)
    assert config["file_mounts"]["~/rsi-ray/dist"] == "dist"
    assert config["file_mounts"]["~/rsi-ray/constraints.txt"] == "constraints.txt"
    (install,) = [command for command in config["setup_commands"] if "pip install" in command]
    assert "--constraint ~/rsi-ray/constraints.txt" in install
    assert "~/rsi-ray/dist/*.whl" in install
    assert config["setup_commands"] == told("cluster.yaml")["setup_commands"]


@pytest.mark.parametrize("name", CLOUDS)
def test_nodes_have_what_torch_compiles_with(name: str):
    (install,) = [one for one in told(name)["initialization_commands"] if " install" in one]
    assert {"gcc", "libc6-dev", "python3-dev"} <= set(install.split())


def test_nothing_trains_beside_the_ledger(name: str):
    assert "--num-cpus=0" in starts(told(name)["head_start_ray_commands"])


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_scale_from_zero_and_those_with_gpus_are_spot(name: str):
    config = told(name)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    workers = {kind: each for kind, each in types.items() if kind != config["head_node_type"]}
    assert {each["min_workers"] for each in workers.values()} == {0}
    assert {"gpu", "cpu"} <= set(workers)
    for kind in (kind for kind in workers if kind.startswith("gpu")):
        assert "spot" in str(workers[kind]["node_config"]).lower()
    assert "spot" not in str(types["head"]["node_config"]).lower()


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_is_not_started_before_the_ledgers_disk_is_mounted(name: str):
    commands = told(name)["head_start_ray_commands"]
    assert commands[0].endswith("/mnt/ledger")
    assert "ledger" in commands[0].split()[0]
    script = commands[0].split()[0].replace("~/rsi-ray/", "")
    assert (ROOT / script).stat().st_mode & 0o111


def test_no_disk_of_the_ledger_ends_with_an_instance():
    disks = told("deploy/gcp.yaml")["available_node_types"]["head"]["node_config"]["disks"]
    assert [disk["autoDelete"] for disk in disks] == [True, False]
    mappings = told("cluster.yaml")["available_node_types"]["head"]["node_config"]["BlockDeviceMappings"]
    assert [mapping["DeviceName"] for mapping in mappings] == [
        "/dev/sda1"
    ]  # the volume comes later, by itself


def test_make_wheel_builds_what_the_files_mount():
    printed = subprocess.run(
        ["make", "--dry-run", "wheel", "BIN=bin"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "pip wheel --quiet --no-deps --wheel-dir dist ." in printed.stdout


def manifests() -> list[dict[str, Any]]:
    files = sorted(KUBERAY.glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text())]


def of_kind(kind: str) -> dict[str, Any]:
    (only,) = [each for each in manifests() if each["kind"] == kind]
    return only


def pods() -> list[dict[str, Any]]:
    spec = of_kind("RayCluster")["spec"]
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def test_kuberay_asks_for_the_token_and_serves_nobody_outside():
    spec = of_kind("RayCluster")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert {each["kind"] for each in manifests()}.isdisjoint({"Service", "Ingress", "Secret"})
    cluster = of_kind("RayCluster")["metadata"]["name"]
    policy = of_kind("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == {"ray.io/cluster": cluster}
    assert policy["policyTypes"] == ["Ingress"]
    assert all(rule["from"] for rule in policy["ingress"])


def test_no_pod_of_kuberay_is_root_or_may_become_it():
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_ledgers_password_is_a_secret_that_the_head_alone_is_given():
    head, *workers = pods()
    assert head["containers"][0]["envFrom"] == [{"secretRef": {"name": "rsi-ray-ledger"}}]
    assert all("envFrom" not in pod["containers"][0] for pod in workers)


def test_kuberays_workers_scale_from_zero_and_its_head_trains_nothing():
    spec = of_kind("RayCluster")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"] is True
    assert {(group["replicas"], group["minReplicas"]) for group in spec["workerGroupSpecs"]} == {(0, 0)}


def test_the_rayjob_runs_the_mounted_sweep_once_on_the_raycluster():
    job, cluster = of_kind("RayJob")["spec"], of_kind("RayCluster")
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert job["backoffLimit"] == 0
    mounts = pods()[0]["containers"][0]["volumeMounts"]
    assert str(Path(job["entrypoint"].split()[-1]).parent) in {mount["mountPath"] for mount in mounts}


def test_every_file_names_the_version_of_ray_that_the_tests_passed_with():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    (pin,) = [line for line in pins if line.startswith("ray==")]
    version = pin.partition("==")[2].partition(";")[0]
    assert of_kind("RayCluster")["spec"]["rayVersion"] == version
    assert f"FROM rayproject/ray:{version}-" in (KUBERAY / "Dockerfile").read_text()


def test_kuberays_image_has_what_torch_compiles_with():
    said = (KUBERAY / "Dockerfile").read_text().split()
    assert {"gcc", "libc6-dev"} <= set(said)


def test_ray_refuses_a_key_that_it_does_not_know():
    config = prepare_config(told("cluster.yaml"))
    with pytest.raises(ValidationError, match="'min_nodes' was unexpected"):
        validate_config({**config, "min_nodes": 1})
