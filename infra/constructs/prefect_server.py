"""The Prefect server: reachable inside the VPC only, with a generated password."""

from aws_cdk import Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct

from infra.constructs.database import DatabaseEndpoint
from infra.constructs.nag_suppressions import acknowledge, explain_wildcard
from infra.constructs.service import PREFECT_PORT, PrefectAccess, Service, TaskContext


class PrefectServer(Construct):
    """One task with server and background services, with a name in the VPC's own DNS.

    There is one, because events stay in its memory. It speaks plain HTTP: its security group accepts
    the service's own tasks only.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        context: TaskContext,
        database: DatabaseEndpoint,
        cpu: int,
        memory_mib: int,
        may_be_entered: bool,
    ) -> None:
        super().__init__(scope, id)
        auth = secretsmanager.Secret(
            self,
            "Auth",
            description="PREFECT_API_AUTH_STRING of all clients of the Prefect server",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=48, exclude_punctuation=True
            ),
        )
        acknowledge(auth, "AwsSolutions-SMG4", "Running tasks keep the password that they started with.")
        self.task = Service(self, "Server", context=context, cpu=cpu, memory_mib=memory_mib)
        self.task.add_container(
            "server",
            ["python", "-m", "deployments.server", "--host", "0.0.0.0", "--port", str(PREFECT_PORT)],
            port=PREFECT_PORT,
            health=f"http://127.0.0.1:{PREFECT_PORT}/api/health",
            environment={
                # Without the driver, Prefect ignores the other variables and uses SQLite.
                "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
                "PREFECT_SERVER_DATABASE_HOST": database.host,
                "PREFECT_SERVER_DATABASE_PORT": str(database.port),
                "PREFECT_SERVER_DATABASE_NAME": database.name,
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_UI_API_URL": f"http://127.0.0.1:{PREFECT_PORT}/api",
            },
            secrets={
                "PREFECT_SERVER_DATABASE_USER": ecs.Secret.from_secrets_manager(database.secret, "username"),
                "PREFECT_SERVER_DATABASE_PASSWORD": ecs.Secret.from_secrets_manager(
                    database.secret, "password"
                ),
                "PREFECT_SERVER_API_AUTH_STRING": ecs.Secret.from_secrets_manager(auth),
            },
        )
        self.service = self.task.run(replicas=1, one_at_a_time=True, may_be_entered=may_be_entered)
        if may_be_entered:
            explain_wildcard(
                self.task.definition.task_role,
                "*",
                dict.fromkeys(
                    _OF_ECS_EXEC,
                    "For ECS Exec, which the settings enable; it supports no resources.",
                ),
            )
        # The rule belongs to this stack, so that the data stack does not depend on it.
        self.service.connections.allow_to(database.connections, ec2.Port.tcp(database.port), "Prefect server")
        self.namespace = servicediscovery.PrivateDnsNamespace(
            self, "Namespace", vpc=context.vpc, name=f"{context.name}.internal"
        )
        self.access = PrefectAccess(self._name(context), auth, self.service.connections)

    def _name(self, context: TaskContext) -> str:
        self.service.enable_cloud_map(
            cloud_map_namespace=self.namespace,
            name="server",
            dns_record_type=servicediscovery.DnsRecordType.A,
            dns_ttl=Duration.seconds(10),
        )
        return f"http://server.{context.name}.internal:{PREFECT_PORT}/api"


_OF_ECS_EXEC = tuple(
    f"ssmmessages:{verb}{channel}Channel" for verb in ("Create", "Open") for channel in ("Control", "Data")
)
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-exec.html"""
