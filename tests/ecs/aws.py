"""AWS on this machine: moto's server, with what the CDK would have made."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ecs.models import EC2ContainerServiceBackend, ecs_backends
from moto.moto_api import state_manager
from moto.server import ThreadedMotoServer
from moto.sts.models import sts_backends

REGION = "eu-central-1"
CLUSTER = "jobs"
FAMILY = "snakemake-job"
QUEUE = "task-events"
BUCKET = "jobs"
AUTH_STRING = "operator:the-password-of-prefect"
GATEWAY_SECRET = "the-secret-behind-the-tokens-of-jobs"
STORAGE_ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/files-of-jobs"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "the-key-of-the-role",
    "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-role",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}


@dataclass(frozen=True)
class Aws:
    """What there is, and how to reach it."""

    endpoint_url: str
    subnet: str
    security_group: str

    @property
    def environment(self) -> dict[str, str]:
        """What a program sees that runs with a role in this account."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.endpoint_url}

    @property
    def environment_without_role(self) -> dict[str, str]:
        """What the task of a job sees."""
        return {"AWS_ENDPOINT_URL": self.endpoint_url, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}

    @cached_property
    def ecs(self) -> Any:
        return client("ecs", self.endpoint_url)

    @cached_property
    def events(self) -> Any:
        return client("events", self.endpoint_url)

    @property
    def backend(self) -> EC2ContainerServiceBackend:
        """What moto's server keeps of ECS; what it does by itself in AWS is done here by hand."""
        return ecs_backends[DEFAULT_ACCOUNT_ID][REGION]

    def sessions_of(self, role_arn: str, name: str) -> int:
        """How often STS has made credentials for it."""
        made = sts_backends[DEFAULT_ACCOUNT_ID]["aws"].assumed_roles
        return len([each for each in made if (each.role_arn, each.session_name) == (role_arn, name)])

    def task(self, arn: str) -> dict[str, Any]:
        """As DescribeTasks tells it."""
        (task,) = self.ecs.describe_tasks(cluster=CLUSTER, tasks=[arn], include=["TAGS"])["tasks"]
        return dict(task)

    def tasks_of(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Whatever became of them."""
        tasks = [self.task(arn) for arn in list(self.backend.tasks.get(CLUSTER, {}))]
        return [task for task in tasks if tags_of(task).get("prefect.io/flow-run-id") == flow_run_id]


def client(service: str, endpoint_url: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
    )


@contextmanager
def before_each(aws: Aws, operation: str, interfere: Callable[[], None]) -> Iterator[None]:
    """ECS does this when a request has come, which fails if this raises; `run_task` is an operation."""
    answer = getattr(aws.backend, operation)

    def interfered(*arguments: Any, **options: Any) -> Any:
        interfere()
        return answer(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aws.backend, operation, interfered)
        yield


def tags_of(task: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in task.get("tags", [])}


@contextmanager
def aws_account() -> Iterator[Aws]:
    """An account with a cluster, a network, a bucket, and task events that go to a queue."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    # Otherwise each DescribeTasks would move a task on to its next status.
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
    try:
        host, port = server.get_host_and_port()
        yield _furnished(f"http://{host}:{port}")
    finally:
        state_manager.unset_transition("ecs::task")
        server.stop()


def _furnished(endpoint_url: str) -> Aws:
    ec2, s3, sqs = (client(name, endpoint_url) for name in ("ec2", "s3", "sqs"))
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="jobs", Description="of jobs")["GroupId"]
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    queue = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
    aws = Aws(endpoint_url, subnet, group)
    aws.ecs.create_cluster(clusterName=CLUSTER)
    _register_task_definition(aws)
    pattern = {
        "source": ["aws.ecs"],
        "detail-type": ["ECS Task State Change"],
        "detail": {"group": [f"family:{FAMILY}"]},
    }
    aws.events.put_rule(Name="task-events", EventPattern=json.dumps(pattern), State="ENABLED")
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.events.put_targets(Rule="task-events", Targets=[{"Id": "queue", "Arn": arn}])
    return aws


def _register_task_definition(aws: Aws) -> None:
    aws.ecs.register_task_definition(
        family=FAMILY,
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="1024",
        memory="2048",
        containerDefinitions=[
            {
                "name": "job",
                "image": "prefect-snakemake:test",
                "memory": 2048,  # moto needs it here; ECS doesn't
                "environment": [
                    {"name": "JOBS_STORAGE_URL", "value": f"s3://{BUCKET}/service"},
                    {"name": "JOBS_ISOLATION", "value": "off"},
                    {"name": "AWS_REGION", "value": REGION},
                ],
            }
        ],
    )
