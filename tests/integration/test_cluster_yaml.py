"""cluster.yaml is accepted by the installed Ray: its schema, its checks of `ray up`, and its parser of `ray start`."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

ROOT = Path(__file__).parents[2]
KINDS_OF_COMMANDS = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return document


def start_options(commands: list[str]) -> dict[str, Any]:
    """The options of the one `ray start` among the commands, as Ray's own command line reads them."""
    (line,) = (command for command in commands if "ray start" in command)
    words = shlex.split(line.partition("ray start")[2])
    return start.make_context("ray start", words).params


def test_it_fits_the_json_schema_of_ray(cluster: dict[str, Any]) -> None:
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(cluster, schema)


def test_ray_up_accepts_it(cluster: dict[str, Any]) -> None:
    prepared = prepare_config(cluster)
    validate_config(prepared)
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(cluster["provider"]["worker_ips"])


@pytest.mark.parametrize("kind", KINDS_OF_COMMANDS)
def test_its_commands_are_bash(cluster: dict[str, Any], kind: str) -> None:
    for command in cluster[kind]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_every_node_installs_the_wheel_from_the_mounted_folder(cluster: dict[str, Any]) -> None:
    (mounted,) = cluster["file_mounts"]
    assert any(f"{mounted}/comagent-*.whl" in command for command in cluster["setup_commands"])


def test_workers_look_for_the_head_where_it_listens(cluster: dict[str, Any]) -> None:
    head = start_options(cluster["head_start_ray_commands"])
    worker = start_options(cluster["worker_start_ray_commands"])
    assert head["head"]
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"


@pytest.mark.parametrize("kind", KINDS_OF_COMMANDS[1:])
def test_all_ports_are_pinned_and_different(cluster: dict[str, Any], kind: str) -> None:
    options = start_options(cluster[kind])
    named = ["node_manager_port", "object_manager_port", "runtime_env_agent_port", "metrics_export_port"]
    named += ["dashboard_agent_listen_port", "dashboard_agent_grpc_port"]
    if options["head"]:
        named += ["port", "dashboard_port", "ray_client_server_port"]
    ports = [int(options[name]) for name in named]
    assert 0 not in ports
    assert len(set(ports)) == len(ports)
    assert not set(ports) & set(range(options["min_worker_port"], options["max_worker_port"] + 1))


@pytest.mark.parametrize("kind", KINDS_OF_COMMANDS[1:])
def test_usage_statistics_are_off(cluster: dict[str, Any], kind: str) -> None:
    assert start_options(cluster[kind])["disable_usage_stats"]
