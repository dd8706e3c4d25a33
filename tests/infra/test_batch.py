"""A group whose rule jobs are jobs of AWS Batch: what is made for it, and who may what there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flows.contract.executors import ClusterExecutor
from infra.settings.file import read_settings
from infra.settings.strict import SettingsRefused
from tests.infra.conftest import SETTINGS
from tests.infra.deployment import Deployment, Statement, name

HEADS, RULE_JOBS = "FacadeHeadsOflarge", "RuleJobslargeRole"
BUCKET = "arn:<AWS::Partition>:s3:::trial-111122223333-us-east-1-large"
HERE = "arn:<AWS::Partition>:batch:us-east-1:111122223333"


@pytest.fixture
def with_batch(deployments: dict[str, Deployment]) -> Deployment:
    return deployments["instance"]


def allowed(deployment: Deployment, role: str) -> dict[str, set[str]]:
    """Resources by action."""
    found: dict[str, set[str]] = {}
    statements: list[Statement] = [each for each in deployment.statements() if name(each.role) == role]
    for statement in statements:
        for action in statement.actions:
            found.setdefault(action, set()).update(statement.resources)
    return found


def values(deployment: Deployment, container: str) -> dict[str, Any]:
    containers = dict(deployment.containers())
    return {each["Name"]: each["Value"] for each in containers[container]["Environment"]}


def filled_in(value: Any) -> Any:
    """JSON in a variable, with a text for each part that AWS fills in."""
    if isinstance(value, str):
        return json.loads(value)
    parts = value["Fn::Join"][1]
    text = [part if isinstance(part, str) else "-".join(map(str, *part.values())) for part in parts]
    return json.loads("".join(text))


def test_without_the_setting_nothing_of_batch_is_made(default: Deployment) -> None:
    assert [each for each in default.all() if each.body["Type"].startswith("AWS::Batch")] == []
    for container in ("api", "registration", "job"):
        assert "JOBS_EXECUTORS" not in values(default, container)


def test_rule_jobs_reach_the_files_of_their_group_only(with_batch: Deployment) -> None:
    objects = ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts")
    assert allowed(with_batch, RULE_JOBS) == {
        **{f"s3:{action}": {f"{BUCKET}/*"} for action in objects},
        "s3:ListBucket": {BUCKET},
    }


def test_heads_submit_to_one_queue_from_one_definition_and_pass_on_no_role(with_batch: Deployment) -> None:
    rights = allowed(with_batch, HEADS)
    queue = with_batch.one("AWS::Batch::JobQueue")
    definition = f"{HERE}:job-definition/trial-large"
    assert rights["batch:SubmitJob"] == {f"<{queue.id}.JobQueueArn>", definition, f"{definition}:*"}
    assert rights["batch:TerminateJob"] == rights["batch:TagResource"] == {f"{HERE}:job/*"}
    batch = {action for action in rights if not action.startswith("s3:")}
    assert batch == {f"batch:{verb}" for verb in ("SubmitJob", "TerminateJob", "TagResource", "DescribeJobs")}
    assert {each for action in rights if action.startswith("s3:") for each in rights[action]} == {
        BUCKET,
        f"{BUCKET}/*",
    }


def test_the_reconciler_ends_rule_jobs_whose_head_was_killed(
    default: Deployment, with_batch: Deployment
) -> None:
    rights = allowed(with_batch, "WorkerDefinitionTaskRole")
    assert rights["batch:TerminateJob"] == {f"{HERE}:job/*"}
    assert "*" in rights["batch:ListJobs"]
    assert default.who_may("batch:ListJobs") == default.who_may("batch:TerminateJob") == set()


def test_a_rule_job_is_an_ordinary_container_on_fargate_in_the_private_network(
    with_batch: Deployment,
) -> None:
    definition = with_batch.one("AWS::Batch::JobDefinition").properties
    container = definition["ContainerProperties"]
    assert definition["PlatformCapabilities"] == ["FARGATE"]
    assert "Privileged" not in container
    assert container["NetworkConfiguration"] == {"AssignPublicIp": "DISABLED"}
    role = with_batch.one("AWS::IAM::Role", RULE_JOBS)
    assert container["JobRoleArn"] == {"Fn::GetAtt": [role.id, "Arn"]}
    assert container["LogConfiguration"]["Options"]["awslogs-group"]
    group = with_batch.one("AWS::EC2::SecurityGroup", "RuleJobs").properties
    assert "SecurityGroupIngress" not in group
    assert {rule["FromPort"] for rule in group["SecurityGroupEgress"]} == {80, 443}


def test_a_rule_job_that_fits_nowhere_does_not_wait_for_ever(with_batch: Deployment) -> None:
    actions = with_batch.one("AWS::Batch::JobQueue").properties["JobStateTimeLimitActions"]
    assert {(each["State"], each["Action"], each["MaxTimeSeconds"]) for each in actions} == {
        ("RUNNABLE", "CANCEL", 600)
    }
    assert {each["Reason"].partition(":")[2] for each in actions} == {
        "COMPUTE_ENVIRONMENT_MAX_RESOURCE",
        "JOB_RESOURCE_REQUIREMENT",
    }


def test_settings_of_the_group_are_those_of_batch(deployments: dict[str, Deployment]) -> None:
    existing = deployments["existing"]
    resources = existing.one("AWS::Batch::ComputeEnvironment").properties["ComputeResources"]
    assert (resources["Type"], resources["MaxvCpus"]) == ("FARGATE_SPOT", 256)
    assert resources["Subnets"] == ["subnet-0a000001", "subnet-0a000002", "subnet-0a000003"]
    container = existing.one("AWS::Batch::JobDefinition").properties["ContainerProperties"]
    assert container["EphemeralStorage"] == {"SizeInGiB": 100}
    rules = existing.one("AWS::S3::Bucket", "RuleJobFiles").properties["LifecycleConfiguration"]["Rules"]
    assert [rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule] == [90]


def test_all_programs_know_the_same_executor(with_batch: Deployment) -> None:
    programs = ("api", "registration", "reconciler", "job")
    declared = [values(with_batch, each)["JOBS_EXECUTORS"] for each in programs]
    assert all(each == declared[0] for each in declared)
    executor = ClusterExecutor.model_validate(filled_in(declared[0])["large"])
    assert (
        executor.job_definition == with_batch.one("AWS::Batch::JobDefinition").properties["JobDefinitionName"]
    )
    assert executor.default_storage is not None
    bucket = with_batch.one("AWS::S3::Bucket", "RuleJobFiles").properties["BucketName"]
    assert executor.default_storage.prefix == f"s3://{bucket}/{{job_id}}"
    roles = filled_in(values(with_batch, "api")["JOBS_GATEWAY_BATCH_ROLE_ARNS"])
    assert name(roles["large"].removesuffix("-Arn")) == HEADS


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[batch.large]", "[batch.Large]", "batch.Large"),
        ("[batch.large]", f"[batch.{'x' * 30}]", "more than 63 characters"),
        ("[batch.large]", "[batch.large]\nmax_vcpus = 0", "batch.large.max_vcpus"),
        ('kind = "pushed"', 'kind = "built"', "batch.large.image"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (SETTINGS / "instance.toml").read_text()
    if message == "more than 63 characters":
        text = text.replace('name = "trial"', 'name = "trial-of-an-institute"')
    assert old in text
    (tmp_path / "settings.toml").write_text(text.replace(old, new))
    with pytest.raises(SettingsRefused, match=re.escape(message)):
        read_settings(tmp_path / "settings.toml")
