"""The task definition of jobs, made once, so that no job registers a revision."""

from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from infra.constructs.service import JOBS_HOME, PREFECT_PORT, PrefectAccess, Task, TaskContext
from infra.constructs.storage import Storage

CONTAINER = "job"
"""The worker's overrides name it."""


class Jobs(Construct):
    """Has image, role, secrets and log. RunTask overrides size, disk and command."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        context: TaskContext,
        prefect: PrefectAccess,
        storage: Storage,
        disk_gib: int | None,
    ) -> None:
        super().__init__(scope, id)
        self.family = f"{context.name}-job"
        self.task = Task(
            self,
            "Job",
            context=context,
            cpu=1024,
            memory_mib=2048,
            disk_gib=disk_gib,
            family=self.family,
        )
        self.task.add_container(
            CONTAINER,
            ["python", "-m", "flows.container"],
            environment={
                **prefect.environment,
                "JOBS_STORAGE_URL": storage.url,
                "JOBS_HOME": JOBS_HOME,
                "JOBS_ISOLATION": "off",  # a job is alone in its task, where it could make no room
            },
            secrets=prefect.secrets,
        )
        group = self.task.security_group
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(80), "What workflows download")
        group.connections.allow_to(prefect.connections, ec2.Port.tcp(PREFECT_PORT), "Jobs")
        storage.grant_use(self.task.definition.task_role)
