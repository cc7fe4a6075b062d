"""The files of docs/deploy: they parse, name what there is, and their times fit those of the server."""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from tests.backplane.processes import free_port
from tests.cli.conftest import open_command
from tests.cli.conftest import run as run_command
from trioroom.cli.assignments import NAMES
from trioroom.cli.configuration import ConfiguredCommand
from trioroom.cli.environment import variable_of
from trioroom.cli.serve import serve
from trioroom.settings import Settings

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "docs" / "deploy"
PAGES = [page.read_text("utf-8") for page in (ROOT / "docs" / "howto").glob("*.md")]
MARGIN = 5.0  # seconds that a deadline for all of a server's end is to leave beyond its own


def effective(*options: str) -> dict[str, Any]:
    """What a server would take; fails if that is wrong. Brokers of the examples are not there."""
    result = run_command("serve", "trioroom.demo.app", "--check-config", *options)
    assert result.exit_code == 0, result.stderr
    return tomllib.loads(result.stdout)


def longest_end(settings: dict[str, Any]) -> float:
    """Seconds from SIGTERM to the end of the process."""
    return float(settings.get("drain_delay", 0.0) + settings["drain_timeout"] + 2 * settings["leave_timeout"])


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a file for Kubernetes, by kind."""
    loaded = list(yaml.safe_load_all((DEPLOY / name).read_text("utf-8")))
    assert len({each["kind"] for each in loaded}) == len(loaded)
    return {each["kind"]: each for each in loaded}


def check_variables(variables: dict[str, str]) -> None:
    """Each that begins as ours do means something."""
    assert isinstance(serve, ConfiguredCommand)
    known = {variable_of(name) for name in NAMES} | serve.variables()
    assert {name for name in variables if name.startswith("TRIOROOM_")} <= known


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda path: path.name)
def test_every_file_stands_in_a_page(path: Path) -> None:
    assert any(f"{{literalinclude}} ../deploy/{path.name}\n" in page for page in PAGES)


# -- systemd ---------------------------------------------------------------------------------------


def unit() -> dict[str, list[str]]:
    """The values of each directive of the service."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "trioroom.service").read_text("utf-8").splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_unit_lets_the_server_drain_and_have_its_connections() -> None:
    directives = unit()
    settings = effective("--config", str(DEPLOY / "trioroom.toml"))["settings"]
    assert float(directives["TimeoutStopSec"][0]) >= longest_end(settings) + MARGIN
    assert f"{directives['TimeoutStopSec'][0]} seconds" in (DEPLOY / "trioroom.toml").read_text("utf-8")
    assert directives["LimitNOFILE"] == ["1048576"]
    assert directives["KillMode"] == ["mixed"]  # workers get SIGTERM from their parent, once
    check_variables(dict(each.split("=", 1) for each in directives["Environment"]))
    assert [each.partition("trioroom ")[2] for each in directives["ExecStartPre"] + directives["ExecStart"]] == [
        "serve --check-config", "serve",
    ]  # fmt: skip


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:  # where there is no systemd, the other test has to do
        return
    text = (DEPLOY / "trioroom.service").read_text("utf-8")
    path = tmp_path / "trioroom.service"
    path.write_text(text.replace("/srv/chat/.venv/bin/trioroom", sys.executable))
    ended = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


# -- Docker ----------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    text = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_image_is_made_of_what_there_is_and_runs_as_nobody_special() -> None:
    lines = instructions()
    for word, rest in lines:
        if word == "COPY" and not rest.startswith("--from"):
            assert [name for name in rest.split()[:-1] if not (ROOT / name).exists()] == []
    last_stage = lines[max(i for i, (word, _) in enumerate(lines) if word == "FROM") :]
    assert ("USER", "10001") in last_stage
    assert [word for word, _ in lines].count("FROM") == 2


async def test_command_of_the_image_serves_and_its_health_check_sees_that(tmp_path: Path) -> None:
    commands = dict(instructions())
    shutil.copy(ROOT / "docs" / "examples" / "chat.py", tmp_path)
    port = str(free_port())
    command = [port if word == "8000" else word for word in json.loads(commands["CMD"])]
    check = json.loads(commands["HEALTHCHECK"].partition("CMD ")[2])
    check = [sys.executable, *(word.replace("8000", port) for word in check[1:])]
    assert command[:3] == ["trioroom", "serve", "chat:app"]
    async with open_command(*command[1:], directory=tmp_path) as server:
        await server.wait_said(f"trioroom serves http://0\\.0\\.0\\.0:{port}/")
        assert (await trio.run_process(check, check=False)).returncode == 0
    assert (await trio.run_process(check, check=False, capture_stderr=True)).returncode == 1


def composed(*names: str) -> Any:
    """What Compose makes of several files: those that come later go before, and mappings are put together."""
    merged: Any = {}
    for name in names:
        merged = put_together(merged, yaml.safe_load((DEPLOY / name).read_text("utf-8")))
    return merged


def put_together(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: put_together(below.get(key), value) for key, value in above.items()}}


@pytest.mark.parametrize(
    ("override", "scheme"), [(None, "redis"), ("compose.nats.yaml", "nats"), ("compose.kafka.yaml", "kafka")]
)
def test_composition_names_what_there_is(override: str | None, scheme: str) -> None:
    composition = composed("compose.yaml", *([override] if override else []))
    services = composition["services"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    servers = [service for service in services.values() if "build" in service]
    assert len(servers) == 2
    for server in servers:
        assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
        check_variables(server["environment"])
        settings = effective("--set", f"drain_timeout={server['environment']['TRIOROOM_DRAIN_TIMEOUT']}")["settings"]
        assert float(server["stop_grace_period"].removesuffix("s")) >= longest_end(settings) + MARGIN
        assert set(server["depends_on"]) <= {*services}
        assert server["environment"]["TRIOROOM_BACKPLANE"] == f"{scheme}://broker"
        assert set(server["build"].get("args", {}).values()) <= set(extras)
        assert server["environment"]["TRIOROOM_API_KEY_FILE"] == f"/run/secrets/{server['secrets'][0]}"
        assert set(server["secrets"]) <= {*composition["secrets"]}
    proxy = services["proxy"]
    address = proxy["networks"]["default"]["ipv4_address"]
    assert {server["environment"]["TRIOROOM_TRUSTED_PROXIES"] for server in servers} == {address}
    (network,) = composition["networks"]["default"]["ipam"]["config"]
    assert ipaddress.ip_address(address) in ipaddress.ip_network(network["subnet"])
    assert {upstream.partition(":")[0] for upstream in proxy["environment"]["UPSTREAMS"].split()} <= {*services}
    caddyfile = (DEPLOY / "Caddyfile").read_text("utf-8")
    assert {*re.findall(r"\{\$(\w+):", caddyfile)} == {*proxy["environment"]}
    mounted = [volume.partition(":")[0] for name in ("proxy", "broker") for volume in services[name].get("volumes", ())]
    assert all((DEPLOY / name).is_file() or name in composition["volumes"] for name in mounted)


# -- Kubernetes ------------------------------------------------------------------------------------


def test_pods_are_configured_and_may_drain(tmp_path: Path) -> None:
    objects = documents("kubernetes.yaml")
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    path = tmp_path / "trioroom.toml"
    path.write_text(objects["ConfigMap"]["data"]["trioroom.toml"])
    taken = effective("--config", str(path))
    assert taken["port"] == container["ports"][0]["containerPort"]
    assert taken["workers"] == 1  # HorizontalPodAutoscaler and /metrics look at one process for each pod
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= sleep + longest_end(taken["settings"]) + MARGIN
    assert pod["enableServiceLinks"] is False
    check_variables({each["name"]: each["value"] for each in container["env"]})
    directories = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {each["value"] for each in container["env"]} == {
        f"{directories['secrets']}/{key}" for key in objects["Secret"]["stringData"]
    }
    assert container["command"][-1] == f"{directories['config']}/trioroom.toml"


def test_objects_of_kubernetes_find_each_other() -> None:
    objects = documents("kubernetes.yaml")
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert objects[kind]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", objects["Deployment"]["metadata"]["name"])
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness", "startup")}
    assert {name: probe["path"] for name, probe in paths.items()} == {
        "readiness": "/readyz", "liveness": "/healthz", "startup": "/healthz",
    }  # fmt: skip
    assert {probe["port"] for probe in paths.values()} <= ports
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] in ports


def test_metric_of_the_autoscaler_is_the_one_that_is_collected() -> None:
    (metric,) = documents("kubernetes.yaml")["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    (rule,) = yaml.safe_load((DEPLOY / "prometheus-adapter.yaml").read_text("utf-8"))["rules"]["custom"]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    labels = {each.get("target_label") for each in job["relabel_configs"]}
    assert labels >= set(rule["resources"]["overrides"])


# -- proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("nginx.conf", r"proxy_(?:read|send)_timeout (\d+)s;"), ("haproxy.cfg", r"timeout tunnel (\d+)s")],
)
def test_proxies_are_more_patient_than_the_heartbeat(name: str, pattern: str) -> None:
    defaults = Settings()
    timeouts = [float(found) for found in re.findall(pattern, (DEPLOY / name).read_text("utf-8"))]
    assert timeouts
    assert min(timeouts) > 2 * (defaults.ping_interval + defaults.ping_timeout)
