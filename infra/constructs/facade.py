"""The jobs API: stateless, in any number of tasks, behind the load balancer."""

import json
from collections.abc import Mapping, Sequence

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.gateway import FACADE_PORT, Gateway
from infra.constructs.load_balancer import IDLE_SECONDS
from infra.constructs.rule_jobs import RuleJobs
from infra.constructs.service import JOBS_HOME, PREFECT_PORT, PrefectAccess, Service, TaskContext
from infra.constructs.storage import Storage
from infra.costs import PRICES


class Facade(Construct):
    """`tokens` holds the file that `python -m api tokens` writes. Without `webhooks`, none are sent."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        context: TaskContext,
        prefect: PrefectAccess,
        storage: Storage,
        gateway: Gateway,
        tokens: secretsmanager.ISecret,
        webhooks: secretsmanager.ISecret | None,
        rule_jobs: Sequence[RuleJobs],
        executors: Mapping[str, str],
        retention_days: int | None,
        replicas: int,
        cpu: int,
        memory_mib: int,
    ) -> None:
        super().__init__(scope, id)
        self.task = Service(self, "Api", context=context, cpu=cpu, memory_mib=memory_mib)
        environment = {
            **prefect.environment,
            "JOBS_API_HOST": "0.0.0.0",
            "JOBS_API_PORT": str(FACADE_PORT),
            "JOBS_STORAGE_URL": storage.url,
            "JOBS_HOME": JOBS_HOME,
            "JOBS_MACHINES": "fargate",
            "JOBS_PRICE_VCPU_HOUR": str(PRICES["hourly"]["fargate_vcpu"]),
            "JOBS_PRICE_GIB_HOUR": str(PRICES["hourly"]["fargate_gib"]),
            "JOBS_LOG_FORMAT": "json",
            # Otherwise the load balancer uses connections that the facade is closing, and answers 502.
            "JOBS_KEEP_ALIVE_SECONDS": str(IDLE_SECONDS + 10),
            # The proxy whose X-Forwarded headers uvicorn trusts: the load balancer.
            "FORWARDED_ALLOW_IPS": context.vpc.vpc_cidr_block,
        }
        if retention_days is not None:
            environment["JOBS_RETENTION_DAYS"] = str(retention_days)
        role = self.task.definition.task_role
        environment["JOBS_GATEWAY_STORAGE_ROLE_ARN"] = self._files_of_jobs(storage, role).role_arn
        if rule_jobs:
            heads = {each.group: self._heads_of(each, role).role_arn for each in rule_jobs}
            environment |= {**executors, "JOBS_GATEWAY_BATCH_ROLE_ARNS": json.dumps(heads)}
        secrets = {
            **prefect.secrets,
            **gateway.secrets,
            "JOBS_TOKENS": ecs.Secret.from_secrets_manager(tokens),
        }
        if webhooks is not None:
            secrets["JOBS_WEBHOOK_SECRET"] = ecs.Secret.from_secrets_manager(webhooks)
        self.task.add_container(
            "api",
            ["python", "-m", "api"],
            environment=environment,
            secrets=secrets,
            port=FACADE_PORT,
            health=f"http://127.0.0.1:{FACADE_PORT}/livez",
        )
        self.service = self.task.run(replicas=replicas, one_at_a_time=False)
        self.service.connections.allow_to(prefect.connections, ec2.Port.tcp(PREFECT_PORT), "Facade")
        gateway.lead_to(self.service)
        storage.grant_use(role)

    def _files_of_jobs(self, storage: Storage, facade: iam.IRole) -> iam.Role:
        """The role of which the facade makes credentials, for one job each by a policy of the session."""
        role = iam.Role(
            self,
            "FilesOfJobs",
            assumed_by=iam.ArnPrincipal(facade.role_arn),
            description="Files of jobs in the bucket; the facade limits each session to one job",
        )
        storage.grant_jobs(role)
        role.grant_assume_role(facade)
        return role

    def _heads_of(self, rule_jobs: RuleJobs, facade: iam.IRole) -> iam.Role:
        """The role of which the facade makes credentials for heads of a group, likewise for one job each."""
        role = iam.Role(
            self,
            f"HeadsOf-{rule_jobs.group}",
            assumed_by=iam.ArnPrincipal(facade.role_arn),
            description=f"Rule jobs of {rule_jobs.group}; the facade limits each session to one job",
        )
        rule_jobs.grant_heads(role)
        role.grant_assume_role(facade)
        return role
