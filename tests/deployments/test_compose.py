"""compose.yaml says what the programs understand, and publishes nothing beyond loopback.

So does it together with compose.scale.yaml.
"""

import re
from typing import Any

import prefect.settings
import pytest
import yaml

from api.settings import Settings
from deployments.broker import BrokerSettings
from deployments.local import PROJECT, WORK_POOL
from flows.contract.presentation import PresentationSettings
from flows.worker.worker import WorkerSettings
from flows.workspace.settings import WorkspaceSettings


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((PROJECT / "deployments" / name).read_text())
    return content


def merged(below: Any, above: Any) -> Any:
    """As compose merges two files; lists of the second replace those of the first, as `command` does."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **above, **{name: merged(below[name], above[name]) for name in below.keys() & above}}


SERVICES: dict[str, Any] = read("compose.yaml")["services"]
LARGER: dict[str, Any] = merged(SERVICES, read("compose.scale.yaml")["services"])
OURS = {name: service for name, service in SERVICES.items() if name != "postgres"}
OURS_LARGER = {name: service for name, service in LARGER.items() if name not in ("postgres", "valkey")}
VARIABLES = [
    (service, name)
    for service, content in OURS_LARGER.items()
    for name in content["environment"]
    if not name.startswith("POSTGRES")
]


@pytest.mark.parametrize(("service", "name"), VARIABLES)
def test_every_variable_is_one_that_is_read(service: str, name: str) -> None:
    if name.startswith("JOBS_"):
        settings = (Settings, WorkspaceSettings, WorkerSettings, PresentationSettings, BrokerSettings)
        fields = {
            f"{each.model_config.get('env_prefix', '')}{name}".upper()
            for each in settings
            for name in each.model_fields
        }
        assert name in fields
    else:
        assert hasattr(prefect.settings, name)


def test_the_server_is_the_tuned_one_and_on_postgresql() -> None:
    server = SERVICES["server"]

    assert server["command"][:3] == ["python", "-m", "deployments.server"]
    assert server["environment"]["PREFECT_SERVER_DATABASE_DRIVER"] == "postgresql+asyncpg"


def test_the_worker_works_in_the_pool_that_is_registered() -> None:
    command = SERVICES["worker"]["command"]

    assert command[command.index("--pool") + 1] == WORK_POOL
    assert command[command.index("--type") + 1] == WORK_POOL
    assert SERVICES["registration"]["command"] == ["python", "-m", "deployments", "register"]


def test_nothing_is_published_beyond_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published.keys() == {"server", "facade"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


@pytest.mark.parametrize(("file", "count"), [("compose.yaml", 5), ("compose.scale.yaml", 2)])
def test_no_secret_is_written_down(file: str, count: int) -> None:
    text = (PROJECT / "deployments" / file).read_text()
    secrets = re.findall(r"^ +(\w*(?:PASSWORD|AUTH_STRING|TOKENS)): (.*)$", text, re.M)

    assert len(secrets) == count
    assert all(value.startswith("${") and ":?" in value for _, value in secrets)


def test_facade_and_worker_share_the_jobs_and_nothing_is_root() -> None:
    assert SERVICES["facade"]["volumes"] == SERVICES["worker"]["volumes"] == ["jobs:/var/lib/jobs"]
    assert "USER 10001:10001" in (PROJECT / "deployments" / "Dockerfile").read_text()
    assert all(service["cap_drop"] == ["ALL"] for service in OURS.values())


def test_a_larger_server_has_two_processes_behind_one_name_and_its_services_apart() -> None:
    api = ["python", "-m", "deployments.server", "api", "--migrate"]

    assert LARGER["server"]["command"][:5] == LARGER["server-2"]["command"][:5] == api
    assert LARGER["server-2"]["networks"]["default"]["aliases"] == ["server"]
    assert LARGER["services"]["command"] == ["python", "-m", "deployments.server", "services", "--migrate"]
    for name in ("server", "server-2"):
        assert "/api/ready" in str(LARGER[name]["healthcheck"]["test"])


def test_programs_of_a_larger_server_share_a_database_and_valkey() -> None:
    programs = [LARGER[name] for name in ("server", "server-2", "services")]

    for program in programs:
        assert program["environment"]["JOBS_VALKEY_HOST"] == "valkey"
        assert set(program["depends_on"]) == {"postgres", "valkey"}
        database = {name: value for name, value in program["environment"].items() if "_DATABASE_" in name}
        assert database == {
            name: value for name, value in SERVICES["server"]["environment"].items() if "_DATABASE_" in name
        }


def test_only_programs_of_the_prefect_server_reach_a_valkey_that_asks_for_no_password() -> None:
    inside = {name for name, service in LARGER.items() if "broker" in service.get("networks", [])}

    assert inside == {"valkey", "server", "server-2", "services"}
    assert LARGER["valkey"]["networks"] == ["broker"]
    assert read("compose.scale.yaml")["networks"] == {"broker": {"internal": True}}


def test_a_larger_server_publishes_no_more_and_nothing_of_it_is_root() -> None:
    published = {name: service["ports"] for name, service in LARGER.items() if "ports" in service}

    assert published == {name: SERVICES[name]["ports"] for name in ("server", "facade")}
    assert all(service["cap_drop"] == ["ALL"] for service in OURS_LARGER.values())
