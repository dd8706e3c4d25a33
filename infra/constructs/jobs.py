"""The task definition of jobs, made once, so that no job registers a revision.

Its role may do nothing, and no secret is injected: rules find both in their task. What a job needs of
Prefect and of the bucket, it gets from the facade, by the token that the worker gives it.
"""

from collections.abc import Mapping

from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from infra.constructs.gateway import FACADE_PORT
from infra.constructs.service import JOBS_HOME, Task, TaskContext
from infra.constructs.storage import Storage

CONTAINER = "job"
"""The worker's overrides name it."""


class Jobs(Construct):
    """Has image, role and log. RunTask overrides size, disk, command and token."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        context: TaskContext,
        storage: Storage,
        disk_gib: int | None,
        executors: Mapping[str, str],
        public_url: str,
    ) -> None:
        """`public_url` is the facade's; `executors` are the variables that declare where rule jobs run."""
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
                "JOBS_STORAGE_URL": storage.url,
                "JOBS_HOME": JOBS_HOME,
                "JOBS_PUBLIC_URL": public_url,
                "JOBS_ISOLATION": "off",  # a job is alone in its task, where it could make no room
                **executors,
            },
            secrets={},
        )
        group = self.task.security_group
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(80), "What workflows download")

    def reach(self, facade: ec2.Connections) -> None:
        """Its tasks connect to the facade, and not to Prefect."""
        self.task.security_group.connections.allow_to(facade, ec2.Port.tcp(FACADE_PORT), "Jobs")
