"""The Prefect server: reachable inside the VPC only, with a generated password."""

from aws_cdk import Duration
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct

from infra.constructs import prefect_programs
from infra.constructs.database import DatabaseEndpoint
from infra.constructs.service import PREFECT_PORT, PrefectAccess, Service, TaskContext


class PrefectServer(Construct):
    """One task with server and background services, with a name in the VPC's own DNS.

    There is one, because events stay in its memory; `LargerPrefectServer` has several. It speaks plain
    HTTP: its security group accepts the service's own tasks only.
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
        auth = prefect_programs.client_password(self)
        self.task = Service(self, "Server", context=context, cpu=cpu, memory_mib=memory_mib)
        self.task.add_container(
            "server",
            ["python", "-m", "deployments.server", "--host", "0.0.0.0", "--port", str(PREFECT_PORT)],
            port=PREFECT_PORT,
            health=f"http://127.0.0.1:{PREFECT_PORT}/api/health",
            environment=prefect_programs.environment(database),
            secrets=prefect_programs.secrets(database, auth),
        )
        self.service = self.task.run(replicas=1, one_at_a_time=True, may_be_entered=may_be_entered)
        if may_be_entered:
            prefect_programs.explain_ecs_exec(self.task.definition.task_role)
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
