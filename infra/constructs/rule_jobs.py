"""The rule jobs of a group as jobs of AWS Batch: queue, Fargate, job definition and roles.

A head brings command, environment and size of each rule job, and nothing else: image, roles and log are
those of the job definition, so that no head needs the right to register one or to pass on a role.
"""

from typing import Any

from aws_cdk import Aws, Duration, Size, Stack
from aws_cdk import aws_batch as batch
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct, IConstruct

from infra.constructs.nag_suppressions import explain_wildcard
from infra.constructs.service import HTTPS, TaskContext, log_group
from infra.constructs.storage import OBJECTS

_STUCK = (
    batch.JobStateTimeLimitActionsReason.COMPUTE_ENVIRONMENT_MAX_RESOURCE,
    batch.JobStateTimeLimitActionsReason.JOB_RESOURCE_REQUIREMENT,
)
"""Why a rule job would never run: it needs more vCPUs than the group has, or a size that there is not."""

_STUCK_AFTER = Duration.minutes(10)


class RuleJobs(Construct):
    """Rule jobs reach the internet by HTTP and HTTPS, and read and write one bucket."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        context: TaskContext,
        group: str,
        bucket_name: str,
        image: ecs.ContainerImage,
        max_vcpus: int,
        spot: bool,
        rule_jobs: int,
        timeout_seconds: int,
        disk_gib: int | None,
    ) -> None:
        super().__init__(scope, id)
        self.group = group
        self._name = f"{context.name}-{group}"
        self._bucket_name = bucket_name
        self._rule_jobs, self._timeout_seconds = rule_jobs, timeout_seconds
        self.queue = self._queue(context, max_vcpus, spot=spot)
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("ecs-tasks.amazonaws.com"),
            description=f"Rule jobs of the group {group}: its bucket",
        )
        self._grant_files(self.role)
        self._define(context, image, disk_gib)

    def _queue(self, context: TaskContext, max_vcpus: int, *, spot: bool) -> batch.JobQueue:
        security_group = ec2.SecurityGroup(
            self,
            "SecurityGroup",
            vpc=context.vpc,
            allow_all_outbound=False,
            description=f"Rule jobs of {self._name}",
        )
        security_group.add_egress_rule(ec2.Peer.any_ipv4(), HTTPS, "S3, images, logs")
        security_group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(80), "What rules download")
        fargate = batch.FargateComputeEnvironment(
            self,
            "Fargate",
            vpc=context.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
            security_groups=[security_group],
            maxv_cpus=max_vcpus,
            spot=spot,
        )
        return batch.JobQueue(
            self,
            "Queue",
            job_queue_name=self._name,
            compute_environments=[batch.OrderedComputeEnvironment(compute_environment=fargate, order=1)],
            # Otherwise they would wait for ever, and so would their workflow.
            job_state_time_limit_actions=[
                batch.JobStateTimeLimitAction(reason=reason, max_time=_STUCK_AFTER) for reason in _STUCK
            ],
        )

    def _define(self, context: TaskContext, image: ecs.ContainerImage, disk_gib: int | None) -> None:
        log = log_group(self, context.log_days)
        container = batch.EcsFargateContainerDefinition(
            self,
            "Container",
            image=image,
            command=["false"],  # each rule job brings its own
            cpu=1,
            memory=Size.mebibytes(2048),
            ephemeral_storage_size=None if disk_gib is None else Size.gibibytes(disk_gib),
            job_role=self.role,
            logging=ecs.LogDrivers.aws_logs(stream_prefix="rule-job", log_group=log),
        )
        explain_wildcard(
            container.execution_role,
            "*",
            {"ecr:GetAuthorizationToken": "Fargate pulls the image with it; it knows no narrower resource."},
        )
        batch.EcsJobDefinition(
            self,
            "Definition",
            job_definition_name=self._name,
            container=container,
            timeout=Duration.seconds(self._timeout_seconds),
            propagate_tags=True,
        )

    @property
    def executor(self) -> dict[str, Any]:
        """The group's executor, for JOBS_EXECUTORS."""
        return {
            "executor": "aws-batch",
            "settings": {
                "region": Stack.of(self).region,
                "job_queue": self.queue.job_queue_arn,
                "job_role": self.role.role_arn,
                "task_timeout": self._timeout_seconds,
            },
            "job_definition": self._name,
            "jobs": self._rule_jobs,
            "default_storage": {"provider": "s3", "prefix": f"s3://{self._bucket_name}/{{job_id}}"},
        }

    def grant_heads(self, role: iam.Role) -> None:
        """Allow what all heads of the group need. The policy of a session limits it to one of them."""
        here = _batch_of(self)
        definition, jobs = f"{here}:job-definition/{self._name}", f"{here}:job/*"
        revisions = f"{definition}:*"
        for actions, resources in (
            (["batch:SubmitJob"], [self.queue.job_queue_arn, definition, revisions]),
            (["batch:TagResource", "batch:TerminateJob"], [jobs]),
            (["batch:DescribeJobs"], ["*"]),
        ):
            role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources))
        one_job = "The ids of rule jobs are not known in advance; each session is limited to a tag."
        explain_wildcard(role, jobs, dict.fromkeys(("batch:TagResource", "batch:TerminateJob"), one_job))
        explain_wildcard(role, revisions, {"batch:SubmitJob": "Each deployment may make a new revision."})
        explain_wildcard(role, "*", {"batch:DescribeJobs": "It supports no narrower resource."})
        self._grant_files(role)

    def _grant_files(self, role: iam.Role) -> None:
        bucket = s3.Bucket.from_bucket_name(self, f"BucketOf{role.node.id}", self._bucket_name).bucket_arn
        objects = f"{bucket}/*"
        role.add_to_policy(iam.PolicyStatement(actions=OBJECTS, resources=[objects]))
        # For the whole bucket: Snakemake's plugin asks whether there is one, and whether it is empty.
        role.add_to_policy(iam.PolicyStatement(actions=["s3:ListBucket"], resources=[bucket]))
        explain_wildcard(role, objects, dict.fromkeys(OBJECTS, "The bucket is for files of this group only."))


def grant_ending(role: iam.IRole) -> None:
    """Allow the reconciler to end rule jobs whose head was killed."""
    jobs = f"{_batch_of(role)}:job/*"
    for action, resource in (("batch:TerminateJob", jobs), ("batch:ListJobs", "*")):
        role.add_to_principal_policy(iam.PolicyStatement(actions=[action], resources=[resource]))
    explain_wildcard(role, jobs, {"batch:TerminateJob": "The ids of rule jobs are not known in advance."})


def _batch_of(scope: IConstruct) -> str:
    """What all ARNs of Batch begin with."""
    stack = Stack.of(scope)
    return f"arn:{Aws.PARTITION}:batch:{stack.region}:{stack.account}"
