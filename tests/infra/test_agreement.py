"""What the deployment sets for its programs is what they read: variables, names, commands, sizes."""

import inspect
import pkgutil
from collections.abc import Iterator
from contextlib import nullcontext
from importlib import import_module
from typing import Any

import pytest
import uvicorn
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_valid_setting_names
from prefect_aws.settings import EcsObserverSqsSettings
from pydantic import ValidationError
from pydantic_settings import BaseSettings

import api
import deployments as deployments_room
import flows
from deployments.reconciler import LOOKED
from deployments.registration import RegistrationSettings
from flows.contract import fargate
from infra.constructs.jobs import CONTAINER
from infra.settings.fargate import FARGATE_MEMORY_MIB
from infra.settings.service import Jobs
from tests.infra.deployment import Deployment, name

OF_AWS = {"AWS_REGION", "AWS_DEFAULT_REGION"}
OF_UVICORN = "FORWARDED_ALLOW_IPS"
PROGRAMS = ("flows.snakemake_process", "flows.examples")
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
    for named, container in deployment.containers():
        assert variables(container) <= known, f"{named}: {variables(container) - known}"


def test_a_variable_that_nobody_knows_would_be_seen() -> None:
    known = variables_of_ours() | variables_of_prefect()
    assert {"JOBS_STORAGE_URL", "PREFECT_API_URL"} <= known
    assert known.isdisjoint({"JOBS_STORAGE", "PREFECT_API", OF_UVICORN})


@pytest.mark.parametrize(
    ("container", "command"),
    [
        ("server", "python -m deployments.server --host 0.0.0.0 --port 4200"),
        ("registration", "python -m deployments register --work-pool ecs"),
        ("worker", "python -m deployments.ecs_worker --limit 50 --with-healthcheck"),
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
    for waiting in ("worker", "reconciler"):
        assert found[waiting]["Essential"] is True
        assert found[waiting]["DependsOn"] == [{"Condition": "SUCCESS", "ContainerName": "registration"}]


def test_groups_of_the_settings_are_those_of_the_registration(
    deployments: dict[str, Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "JOBS_GROUPS" not in values(deployments["default"], "registration")
    monkeypatch.setenv("JOBS_GROUPS", values(deployments["existing"], "registration")["JOBS_GROUPS"])
    groups = RegistrationSettings().groups
    assert {group: queue.model_dump() for group, queue in groups.items()} == {
        "large": {"priority": 2, "concurrency_limit": 4},
        "night": {"priority": 9, "concurrency_limit": None},
    }


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
    kept = values(default, "api")["JOBS_KEEP_ALIVE_SECONDS"]
    assert int(kept) > idle_seconds(default, "Door")


def idle_seconds(deployment: Deployment, balancer: str) -> int:
    properties = deployment.one("AWS::ElasticLoadBalancingV2::LoadBalancer", balancer).properties
    attributes = {each["Key"]: each["Value"] for each in properties["LoadBalancerAttributes"]}
    return int(attributes["idle_timeout.timeout_seconds"])


def test_both_tables_of_fargates_sizes_are_the_same() -> None:
    """`infra` imports nothing of the service, so each has one."""
    assert fargate.MEMORY_MIB == FARGATE_MEMORY_MIB


@pytest.mark.parametrize(
    ("disk_gib", "is_accepted"),
    [
        (fargate.DISK_OF_EVERY_TASK_GIB, False),
        (fargate.DISK_OF_EVERY_TASK_GIB + 1, True),
        (fargate.LARGEST_DISK_GIB, True),
        (fargate.LARGEST_DISK_GIB + 1, False),
    ],
)
def test_both_know_how_much_disk_a_job_may_have(disk_gib: int, *, is_accepted: bool) -> None:
    """What every task has anyway is not a setting."""
    with nullcontext() if is_accepted else pytest.raises(ValidationError):
        Jobs(disk_gib=disk_gib)


def test_the_cluster_offers_spot_beside_on_demand(default: Deployment) -> None:
    offered = default.one("AWS::ECS::ClusterCapacityProviderAssociations").properties
    assert set(offered["CapacityProviders"]) == {"FARGATE", "FARGATE_SPOT"}


def test_the_alarm_of_the_reconciler_reads_what_it_writes(deployment: Deployment) -> None:
    looks = deployment.one("AWS::Logs::MetricFilter").properties
    alarm = deployment.one("AWS::CloudWatch::Alarm", "AlarmsReconcilerSilent").properties
    [metric] = looks["MetricTransformations"]
    assert looks["FilterPattern"] == f'{{ $.message = "{LOOKED}" }}'
    assert (metric["MetricNamespace"], metric["MetricName"]) == (alarm["Namespace"], alarm["MetricName"])
    seconds = int(values(deployment, "reconciler")["JOBS_ECS_RECONCILE_SECONDS"])
    assert alarm["Period"] * alarm["EvaluationPeriods"] >= 3 * seconds
    assert alarm["TreatMissingData"] == "breaching"


@pytest.mark.parametrize(
    ("kind", "of_the_data"),
    [
        ("default", {"DatabaseCapacity"}),
        ("instance", {"DatabaseCpu", "DatabaseDisk"}),
        # Its database is watched elsewhere; its Prefect server is a larger one.
        (
            "existing",
            {"ServicesDown", "ServerUnhealthy", "ServerBalancerFails", "ValkeyMemory", "ValkeyCpu"},
        ),
    ],
)
def test_which_alarms_there_are(deployments: dict[str, Deployment], kind: str, of_the_data: set[str]) -> None:
    alarms = {
        name(alarm.id).removeprefix("Alarms") for alarm in deployments[kind].all("AWS::CloudWatch::Alarm")
    }
    assert alarms == of_the_data | {
        *("ServerDown", "FacadeDown", "WorkerDown", "ReconcilerSilent"),
        *("CrashDetectionWaits", "DeadLetters"),
        *("FacadeFails", "FacadeUnhealthy", "BalancerFails"),
    }


def test_who_is_told_before_the_money_is_spent(deployment: Deployment) -> None:
    budget = deployment.one("AWS::Budgets::Budget").properties
    assert budget["Budget"]["BudgetLimit"] == {"Amount": 300, "Unit": "USD"}
    letters = {
        (letter["Notification"]["NotificationType"], letter["Notification"]["Threshold"]): letter
        for letter in budget["NotificationsWithSubscribers"]
    }
    assert letters.keys() == {("ACTUAL", 80), ("FORECASTED", 100)}
    told = [{"Address": "operators@example.org", "SubscriptionType": "EMAIL"}]
    assert all(letter["Subscribers"] == told for letter in letters.values())


@pytest.mark.parametrize(("kind", "services"), [("default", 3), ("existing", 4)])
def test_the_alarm_of_each_service_fires_when_it_reports_nothing(
    deployments: dict[str, Deployment], kind: str, services: int
) -> None:
    deployment = deployments[kind]
    down = [alarm for alarm in deployment.all("AWS::CloudWatch::Alarm") if "Down" in alarm.id]
    assert len(down) == len(list(deployment.all("AWS::ECS::Service"))) == services
    assert {alarm.properties["TreatMissingData"] for alarm in down} == {"breaching"}
