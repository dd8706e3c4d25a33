"""What the ground gives its programs is what they know: variables, names, commands."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import uvicorn
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_valid_setting_names
from prefect_aws.settings import EcsObserverSqsSettings
from pydantic_settings import BaseSettings

import api
import deployments as deployments_room
import flows
from deployments.local import SERVER_TUNING
from infra.constructs.jobs import CONTAINER
from infra.constructs.prefect_server import TUNING
from tests.infra.deployment import Deployment

OF_AWS = {"AWS_REGION", "AWS_DEFAULT_REGION"}
OF_UVICORN = "FORWARDED_ALLOW_IPS"
PROGRAMS = ("flows.inside", "flows.examples")
"""They run in Snakemake's process, and read no settings."""


def variables_of_ours() -> set[str]:
    """Every variable that a settings class of the rooms reads."""
    for room in (api, flows, deployments_room):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if not module.name.startswith(PROGRAMS) and not module.name.endswith("__main__"):
                import_module(module.name)

    def families(model: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
        yield model
        for below in model.__subclasses__():
            yield from families(below)

    return {
        f"{family.model_config.get('env_prefix', '')}{field}".upper()
        for family in families(BaseSettings)
        if family.__module__.split(".")[0] in ("api", "flows", "deployments")
        for field in family.model_fields
    }


def variables_of_prefect() -> set[str]:
    prefix = EcsObserverSqsSettings.model_config.get("env_prefix", "")
    return _get_valid_setting_names(PrefectSettings) | {
        f"{prefix}{field}".upper() for field in EcsObserverSqsSettings.model_fields
    }


def variables(container: dict[str, Any]) -> set[str]:
    return {variable["Name"] for part in ("Environment", "Secrets") for variable in container.get(part, [])}


def values(default: Deployment, container: str) -> dict[str, Any]:
    return {
        variable["Name"]: variable["Value"]
        for named, definition in default.containers()
        if named == container
        for variable in definition["Environment"]
    }


def test_every_variable_of_a_container_is_known_to_its_program(deployment: Deployment) -> None:
    known = OF_AWS | {OF_UVICORN} | variables_of_ours() | variables_of_prefect()
    assert OF_UVICORN in inspect.getsource(uvicorn.Config)
    for name, container in deployment.containers():
        assert variables(container) <= known, f"{name}: {variables(container) - known}"


def test_a_variable_that_nobody_knows_would_be_seen() -> None:
    known = variables_of_ours() | variables_of_prefect()
    assert {"JOBS_STORAGE_URL", "PREFECT_API_URL"} <= known
    assert known.isdisjoint({"JOBS_STORAGE", "PREFECT_API", OF_UVICORN})


def test_the_server_is_tuned_as_the_local_one() -> None:
    assert TUNING == SERVER_TUNING


@pytest.mark.parametrize(
    ("container", "command"),
    [
        ("server", "prefect server start --host 0.0.0.0 --port 4200"),
        ("registration", "python -m deployments register --work-pool ecs"),
        ("worker", "prefect worker start --type ecs --pool ecs --limit 50 --with-healthcheck"),
        ("reconciler", "python -m deployments reconcile"),
        ("api", "python -m api"),
        (CONTAINER, "python -m flows.container"),
    ],
)
def test_one_image_and_each_program_its_command(default: Deployment, container: str, command: str) -> None:
    found = dict(default.containers())
    assert " ".join(found[container]["Command"]) == command
    assert len({str(definition["Image"]) for definition in found.values()}) == 1


def test_worker_and_reconciler_wait_for_the_registration_which_may_end(default: Deployment) -> None:
    found = dict(default.containers())
    assert found["registration"]["Essential"] is False
    for name in ("worker", "reconciler"):
        assert found[name]["Essential"] is True
        assert found[name]["DependsOn"] == [{"Condition": "SUCCESS", "ContainerName": "registration"}]


def test_jobs_run_where_the_work_pool_is_told(default: Deployment) -> None:
    told = values(default, "registration")
    definition = default.one("AWS::ECS::TaskDefinition", "Jobs")
    assert told["JOBS_ECS_TASK_DEFINITION"] == definition.properties["Family"]
    group = default.one("AWS::EC2::SecurityGroup", "Jobs")
    assert told["JOBS_ECS_SECURITY_GROUPS"] == {"Fn::GetAtt": [group.id, "GroupId"]}
    assert told["JOBS_ECS_ASSIGN_PUBLIC_IP"] == "false"
    assert told.items() <= values(default, "reconciler").items()


def test_the_queue_that_the_worker_reads_is_fed_with_the_ends_of_jobs_only(default: Deployment) -> None:
    queue = default.one("AWS::SQS::Queue", "CrashDetectionQueue")
    read = values(default, "worker")["PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME"]
    assert read == {"Fn::GetAtt": [queue.id, "QueueName"]}
    rule = default.one("AWS::Events::Rule").properties
    cluster = default.one("AWS::ECS::Cluster")
    assert rule["EventPattern"] == {
        "source": ["aws.ecs"],
        "detail-type": ["ECS Task State Change"],
        "detail": {
            "clusterArn": [{"Fn::GetAtt": [cluster.id, "Arn"]}],
            "group": [f"family:{values(default, 'registration')['JOBS_ECS_TASK_DEFINITION']}"],
        },
    }
    assert [target["Arn"] for target in rule["Targets"]] == [{"Fn::GetAtt": [queue.id, "Arn"]}]


def test_the_facade_keeps_connections_longer_than_the_load_balancer(default: Deployment) -> None:
    balancer = default.one("AWS::ElasticLoadBalancingV2::LoadBalancer").properties
    attributes = {each["Key"]: each["Value"] for each in balancer["LoadBalancerAttributes"]}
    kept = values(default, "api")["JOBS_KEEP_ALIVE_SECONDS"]
    assert int(kept) > int(attributes["idle_timeout.timeout_seconds"])


def test_the_cluster_offers_spot_beside_on_demand(default: Deployment) -> None:
    offered = default.one("AWS::ECS::ClusterCapacityProviderAssociations").properties
    assert set(offered["CapacityProviders"]) == {"FARGATE", "FARGATE_SPOT"}


def test_the_alarm_of_each_service_rings_when_it_reports_nothing(default: Deployment) -> None:
    down = [alarm for alarm in default.all("AWS::CloudWatch::Alarm") if "Down" in alarm.id]
    assert len(down) == len(list(default.all("AWS::ECS::Service"))) == 3
    assert {alarm.properties["TreatMissingData"] for alarm in down} == {"breaching"}
