"""The task that starts jobs: registers the groups, then runs Prefect's ECS worker and the reconciler."""

import json
from collections.abc import Mapping

from aws_cdk import Aws, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.constructs.crash_detection import CrashDetection
from infra.constructs.jobs import Jobs
from infra.constructs.reasons import explain_wildcard
from infra.constructs.service import PREFECT_PORT, Ground, PrefectAccess, Service

WORK_POOL = "ecs"
_HEALTH_PORT = 8080


class Worker(Construct):
    """One task, on demand: it starts as many jobs as one Prefect server records."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        ground: Ground,
        prefect: PrefectAccess,
        jobs: Jobs,
        crash_detection: CrashDetection,
        cpu: int,
        memory_mib: int,
        reconcile_seconds: int,
        groups: Mapping[str, Mapping[str, int | None]],
    ) -> None:
        super().__init__(scope, id)
        self.task = Service(self, "Worker", ground=ground, cpu=cpu, memory_mib=memory_mib)
        private = ground.vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
        environment = {
            **prefect.environment,
            "JOBS_ECS_CLUSTER": ground.cluster.cluster_arn,
            "JOBS_ECS_TASK_DEFINITION": jobs.family,
            "JOBS_ECS_SUBNETS": ",".join(private.subnet_ids),
            "JOBS_ECS_SECURITY_GROUPS": jobs.task.security_group.security_group_id,
            "JOBS_ECS_AUTH_SECRET_ARN": prefect.auth.secret_full_arn or prefect.auth.secret_arn,
            "JOBS_ECS_ASSIGN_PUBLIC_IP": "false",
        }
        registration = self.task.add_container(
            "registration",
            ["python", "-m", "deployments", "register", "--work-pool", WORK_POOL],
            environment=environment | ({"JOBS_GROUPS": json.dumps(groups)} if groups else {}),
            secrets=prefect.secrets,
            essential=False,
        )
        worker = self.task.add_container(
            "worker",
            [
                *("prefect", "worker", "start", "--type", "ecs", "--pool", WORK_POOL),
                # Of jobs whose task it is about to start, not of those that run: what waits stays
                # Scheduled, and is not mistaken for a job that no worker starts.
                *("--limit", "50", "--with-healthcheck"),
            ],
            environment={
                **prefect.environment,
                "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": crash_detection.queue.queue_name,
                "PREFECT_WORKER_WEBSERVER_PORT": str(_HEALTH_PORT),
            },
            secrets=prefect.secrets,
            health=f"http://127.0.0.1:{_HEALTH_PORT}/health",
        )
        reconciler = self.task.add_container(
            "reconciler",
            ["python", "-m", "deployments", "reconcile"],
            environment={**environment, "JOBS_ECS_RECONCILE_SECONDS": str(reconcile_seconds)},
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
        self._grant_jobs(ground, jobs)

    def _grant_jobs(self, ground: Ground, jobs: Jobs) -> None:
        """Start, see and stop tasks of one family in one cluster, and hand them their two roles."""
        stack = Stack.of(self)
        ours = {"ArnEquals": {"ecs:cluster": ground.cluster.cluster_arn}}
        here = f"arn:{Aws.PARTITION}:ecs:{stack.region}:{stack.account}"
        tasks = f"{here}:task/{ground.cluster_name}/*"
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
            # The end of a job's log that never reached Prefect, forwarded by the worker.
            iam.PolicyStatement(actions=["logs:GetLogEvents"], resources=[jobs.task.log_group.log_group_arn]),
        ):
            self.task.definition.add_to_task_role_policy(statement)
        role = self.task.definition.task_role
        of_tasks = ("ecs:DescribeTasks", "ecs:StopTask", "ecs:TagResource")
        unnamed = "Tasks of the one cluster have no names beforehand."
        explain_wildcard(role, tasks, dict.fromkeys(of_tasks, unnamed))
        explain_wildcard(role, family, {"ecs:RunTask": "Each deployment makes a revision of the one family."})
        explain_wildcard(
            role,
            "*",
            {
                "ecs:ListTasks": "Held by its cluster.",
                "ecs:DescribeTaskDefinition": "Knows no narrower resource.",
            },
        )
