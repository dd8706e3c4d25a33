"""compose.yaml says what the programs understand, and publishes nothing beyond loopback."""

import re
from typing import Any

import prefect.settings
import pytest
import yaml

from api.settings import Settings
from deployments.local import PROJECT, WORK_POOL
from flows.contract.presentation import PresentationSettings
from flows.worker.worker import WorkerSettings
from flows.workspace.settings import WorkspaceSettings

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "deployments" / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if name != "postgres"}
VARIABLES = [
    (service, name)
    for service, content in OURS.items()
    for name in content["environment"]
    if not name.startswith("POSTGRES")
]


@pytest.mark.parametrize(("service", "name"), VARIABLES)
def test_every_variable_is_one_that_is_read(service: str, name: str) -> None:
    if name.startswith("JOBS_"):
        settings = (Settings, WorkspaceSettings, WorkerSettings, PresentationSettings)
        fields = {name for each in settings for name in each.model_fields}
        assert name.removeprefix("JOBS_").lower() in fields
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


def test_no_secret_is_written_down() -> None:
    text = (PROJECT / "deployments" / "compose.yaml").read_text()
    secrets = re.findall(r"^ +(\w*(?:PASSWORD|AUTH_STRING|TOKENS)): (.*)$", text, re.M)

    assert len(secrets) == 5
    assert all(value.startswith("${") and ":?" in value for _, value in secrets)


def test_facade_and_worker_share_the_jobs_and_nothing_is_root() -> None:
    assert SERVICES["facade"]["volumes"] == SERVICES["worker"]["volumes"] == ["jobs:/var/lib/jobs"]
    assert "USER 10001:10001" in (PROJECT / "deployments" / "Dockerfile").read_text()
    assert all(service["cap_drop"] == ["ALL"] for service in OURS.values())
