"""The programs: Prefect server, facade, worker, and the task definition of jobs."""

import json
from typing import Any

from aws_cdk import CfnOutput, IgnoreMode, Stack
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.cluster import existing_cluster, new_cluster
from infra.constructs.crash_detection import CrashDetection
from infra.constructs.database import DatabaseEndpoint
from infra.constructs.facade import Facade
from infra.constructs.gateway import PATH, Gateway
from infra.constructs.jobs import Jobs
from infra.constructs.larger_server import LargerPrefectServer
from infra.constructs.load_balancer import LoadBalancer
from infra.constructs.prefect_server import PrefectServer
from infra.constructs.rule_jobs import RuleJobs, grant_ending
from infra.constructs.service import TaskContext
from infra.constructs.storage import Storage
from infra.constructs.worker import Worker
from infra.settings.delivery import BuiltImage, ForeignImage, PushedImage
from infra.settings.file import Settings
from infra.settings.foundation import ExistingCluster


class ServiceStack(Stack):
    def __init__(
        self,
        scope: Construct,
        id: str,
        settings: Settings,
        *,
        vpc: ec2.IVpc,
        access_logs: s3.IBucket,
        repository: ecr.IRepository,
        storage: Storage,
        database: DatabaseEndpoint,
        **options: Any,
    ) -> None:
        super().__init__(scope, id, **options)
        self._settings = settings
        context = TaskContext(
            name=settings.name,
            vpc=vpc,
            cluster=self._cluster(vpc),
            cluster_name=settings.cluster_name,
            image=self._image(repository),
            log_days=settings.watch.log_days,
        )
        self.server = self._server(context, database)
        prefect = self.server.access
        gateway = Gateway(self, "Gateway", namespace=self.server.namespace)
        rule_jobs = self._rule_jobs(context, repository)
        declared = json.dumps({each.group: each.executor for each in rule_jobs})
        executors = {"JOBS_EXECUTORS": declared} if rule_jobs else {}
        jobs = Jobs(
            self,
            "Jobs",
            context=context,
            storage=storage,
            disk_gib=settings.jobs.disk_gib,
            executors=executors,
            public_url=f"https://{settings.facade.domain_name}",
        )
        self.crash_detection = CrashDetection(
            self,
            "CrashDetection",
            name=settings.name,
            cluster_arn=context.cluster.cluster_arn,
            family=jobs.family,
        )
        self.worker = Worker(
            self,
            "Worker",
            context=context,
            prefect=prefect,
            jobs=jobs,
            gateway=gateway,
            crash_detection=self.crash_detection,
            reconcile_seconds=settings.worker.reconcile_seconds,
            groups={name: group.model_dump() for name, group in settings.groups.items()},
            executors=executors,
            **dict(settings.worker.size),
        )
        if rule_jobs:
            grant_ending(self.worker.task.definition.task_role)
        facade, webhooks = settings.facade, None
        if facade.webhook_secret_arn is not None:
            webhooks = secretsmanager.Secret.from_secret_complete_arn(
                self, "Webhooks", facade.webhook_secret_arn
            )
        self.facade = Facade(
            self,
            "Facade",
            context=context,
            prefect=prefect,
            storage=storage,
            gateway=gateway,
            tokens=secretsmanager.Secret.from_secret_complete_arn(self, "Tokens", facade.tokens_secret_arn),
            webhooks=webhooks,
            rule_jobs=rule_jobs,
            executors=executors,
            retention_days=facade.retention_days,
            replicas=facade.replicas,
            **dict(facade.size),
        )
        jobs.reach(self.facade.service.connections)
        self.load_balancer = self._load_balancer(vpc, access_logs)
        # Neither becomes healthy without the server.
        for service in (self.worker.service, self.facade.service):
            service.node.add_dependency(self.server.service)
        CfnOutput(self, "Url", value=f"https://{settings.facade.domain_name}")
        CfnOutput(self, "BalancerName", value=self.load_balancer.balancer.load_balancer_dns_name)

    def _server(
        self, context: TaskContext, database: DatabaseEndpoint
    ) -> PrefectServer | LargerPrefectServer:
        server = self._settings.server
        options: dict[str, Any] = {
            "context": context,
            "database": database,
            "may_be_entered": server.may_be_entered,
            **dict(server.size),
        }
        if server.replicas == 1:
            return PrefectServer(self, "Prefect", **options)
        return LargerPrefectServer(
            self,
            "Prefect",
            replicas=server.replicas,
            node_type=server.messaging.node_type,
            protect=self._settings.protect_data,
            **options,
        )

    def _cluster(self, vpc: ec2.IVpc) -> ecs.ICluster:
        cluster = self._settings.cluster
        if isinstance(cluster, ExistingCluster):
            return existing_cluster(self, "Cluster", vpc=vpc, name=self._settings.cluster_name)
        return new_cluster(
            self,
            "Cluster",
            vpc=vpc,
            name=self._settings.cluster_name,
            container_insights=cluster.container_insights,
        )

    def _rule_jobs(self, context: TaskContext, repository: ecr.IRepository) -> list[RuleJobs]:
        return [
            RuleJobs(
                self,
                f"RuleJobs-{group}",
                context=context,
                group=group,
                bucket_name=self._settings.batch_bucket(group),
                image=_image(batch.image, repository),
                **batch.model_dump(exclude={"image", "keep_days"}),
            )
            for group, batch in self._settings.batch.items()
        ]

    def _image(self, repository: ecr.IRepository) -> ecs.ContainerImage:
        image = self._settings.image
        if isinstance(image, BuiltImage):
            return ecs.ContainerImage.from_asset(
                str(image.context),
                file=image.dockerfile,
                platform=ecr_assets.Platform.LINUX_AMD64,
                ignore_mode=IgnoreMode.DOCKER,
            )
        return _image(image, repository)

    def _load_balancer(self, vpc: ec2.IVpc, access_logs: s3.IBucket) -> LoadBalancer:
        facade = self._settings.facade
        zone = None
        if facade.hosted_zone_id is not None and facade.hosted_zone_name is not None:
            zone = route53.HostedZone.from_hosted_zone_attributes(
                self, "Zone", hosted_zone_id=facade.hosted_zone_id, zone_name=facade.hosted_zone_name
            )
        load_balancer = LoadBalancer(
            self,
            "Door",  # names resources in the templates: another name would replace them
            vpc=vpc,
            service=self.facade.service,
            certificate=self._certificate(zone),
            allowed_cidrs=facade.allowed_cidrs,
            internal=facade.internal,
            access_logs=access_logs,
            protect=self._settings.protect_data,
        )
        load_balancer.hide(PATH)
        if zone is not None:
            load_balancer.name(zone, facade.domain_name)
        return load_balancer

    def _certificate(self, zone: route53.IHostedZone | None) -> acm.ICertificate:
        facade = self._settings.facade
        if facade.certificate_arn is not None:
            return acm.Certificate.from_certificate_arn(self, "Certificate", facade.certificate_arn)
        return acm.Certificate(
            self,
            "Certificate",
            domain_name=facade.domain_name,
            validation=acm.CertificateValidation.from_dns(zone),
        )


def _image(image: PushedImage | ForeignImage, repository: ecr.IRepository) -> ecs.ContainerImage:
    if isinstance(image, PushedImage):
        return ecs.ContainerImage.from_ecr_repository(repository, image.digest)
    return ecs.ContainerImage.from_registry(image.uri)
