"""The task that starts jobs: it registers the groups, then runs Prefect's ECS worker and the reconciler."""

import json
from collections.abc import Mapping

from aws_cdk import Aws, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.constructs.crash_detection import CrashDetection
from infra.constructs.gateway import Gateway
from infra.constructs.jobs import Jobs
from infra.constructs.nag_suppressions import explain_wildcard
from infra.constructs.service import PREFECT_PORT, PrefectAccess, Service, TaskContext

WORK_POOL = "ecs"
_HEALTH_PORT = 8080


class Worker(Construct):
    """One task, because it starts as many jobs as one Prefect server records."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        context: TaskContext,
        prefect: PrefectAccess,
        jobs: Jobs,
        gateway: Gateway,
        crash_detection: CrashDetection,
        cpu: int,
        memory_mib: int,
        reconcile_seconds: int,
        groups: Mapping[str, Mapping[str, int | None]],
        executors: Mapping[str, str],
    ) -> None:
        """`executors` are the variables that declare where rule jobs run."""
        super().__init__(scope, id)
        self.task = Service(self, "Worker", context=context, cpu=cpu, memory_mib=memory_mib)
        private = context.vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
        environment = {
            **prefect.environment,
            "JOBS_ECS_CLUSTER": context.cluster.cluster_arn,
            "JOBS_ECS_TASK_DEFINITION": jobs.family,
            "JOBS_ECS_SUBNETS": ",".join(private.subnet_ids),
            "JOBS_ECS_SECURITY_GROUPS": jobs.task.security_group.security_group_id,
            "JOBS_ECS_ASSIGN_PUBLIC_IP": "false",
        }
        registration = self.task.add_container(
            "registration",
            ["python", "-m", "deployments", "register", "--work-pool", WORK_POOL],
            environment={
                **environment,
                **({"JOBS_GROUPS": json.dumps(groups)} if groups else {}),
                **executors,
            },
            secrets=prefect.secrets,
            essential=False,
        )
        worker = self.task.add_container(
            "worker",
            [
                *("python", "-m", "deployments.ecs_worker"),
                # Counts jobs whose task is about to start, not those that run. Further jobs stay Scheduled,
                # so the reconciler does not take them for jobs that no worker starts.
                *("--limit", "50", "--with-healthcheck"),
            ],
            environment={
                **prefect.environment,
                "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": crash_detection.queue.queue_name,
                "PREFECT_WORKER_WEBSERVER_PORT": str(_HEALTH_PORT),
                "JOBS_ECS_GATEWAY_URL": gateway.url,
            },
            secrets={**prefect.secrets, **gateway.secrets},
            health=f"http://127.0.0.1:{_HEALTH_PORT}/health",
        )
        reconciler = self.task.add_container(
            "reconciler",
            ["python", "-m", "deployments", "reconcile"],
            environment={
                **environment,
                "JOBS_ECS_RECONCILE_SECONDS": str(reconcile_seconds),
                **executors,
            },
            secrets=prefect.secrets,
        )
        for container in (worker, reconciler):
            container.add_container_dependencies(
                ecs.ContainerDependency(
                    container=registration, condition=ecs.ContainerDependencyCondition.SUCCESS
                )
            )
        self.service = self.task.run(replicas=1, one_at_a_time=True)
        self.service.connections.allow_to(prefect.connections, ec2.Port.tcp(PREFECT_PORT), "Worker")
        crash_detection.queue.grant_consume_messages(self.task.definition.task_role)
        self._grant_jobs(context, jobs)

    def _grant_jobs(self, context: TaskContext, jobs: Jobs) -> None:
        """Allow it to start, describe and stop tasks of one family in one cluster, with their two roles."""
        stack = Stack.of(self)
        ours = {"ArnEquals": {"ecs:cluster": context.cluster.cluster_arn}}
        here = f"arn:{Aws.PARTITION}:ecs:{stack.region}:{stack.account}"
        tasks = f"{here}:task/{context.cluster_name}/*"
        family = f"{here}:task-definition/{jobs.family}:*"
        definition = jobs.task.definition
        for statement in (
            iam.PolicyStatement(actions=["ecs:RunTask"], resources=[family], conditions=ours),
            iam.PolicyStatement(
                actions=["ecs:DescribeTasks", "ecs:StopTask"], resources=[tasks], conditions=ours
            ),
            iam.PolicyStatement(
                actions=["ecs:TagResource"],
                resources=[tasks],
                conditions={"StringEquals": {"ecs:CreateAction": "RunTask"}},
            ),
            iam.PolicyStatement(actions=["ecs:ListTasks"], resources=["*"], conditions=ours),
            iam.PolicyStatement(actions=["ecs:DescribeTaskDefinition"], resources=["*"]),
            iam.PolicyStatement(
                actions=["iam:PassRole"],
                resources=[definition.task_role.role_arn, definition.obtain_execution_role().role_arn],
                conditions={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            ),
            # The worker forwards the end of a job's log that did not reach Prefect.
            iam.PolicyStatement(actions=["logs:GetLogEvents"], resources=[jobs.task.log_group.log_group_arn]),
        ):
            self.task.definition.add_to_task_role_policy(statement)
        role = self.task.definition.task_role
        of_tasks = ("ecs:DescribeTasks", "ecs:StopTask", "ecs:TagResource")
        unnamed = "The ids of tasks are not known in advance; the cluster is fixed."
        explain_wildcard(role, tasks, dict.fromkeys(of_tasks, unnamed))
        explain_wildcard(role, family, {"ecs:RunTask": "Each deployment makes a new revision."})
        explain_wildcard(
            role,
            "*",
            {
                "ecs:ListTasks": "A condition restricts it to the cluster.",
                "ecs:DescribeTaskDefinition": "It supports no narrower resource.",
                "batch:ListJobs": "It supports no narrower resource. Only with groups on AWS Batch.",
            },
        )
