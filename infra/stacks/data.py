"""Data that must not be lost: the jobs' bucket and Prefect's database."""

from typing import Any

from aws_cdk import CfnOutput, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_rds as rds
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.constructs.database import AuroraDatabase, DatabaseEndpoint, InstanceDatabase, existing_database
from infra.constructs.rule_job_files import RuleJobFiles
from infra.constructs.storage import Storage
from infra.settings.data import AuroraDatabase as AuroraSettings
from infra.settings.data import ExistingDatabase
from infra.settings.file import Settings


class DataStack(Stack):
    def __init__(
        self,
        scope: Construct,
        id: str,
        settings: Settings,
        *,
        vpc: ec2.IVpc,
        access_logs: s3.IBucket,
        **options: Any,
    ) -> None:
        super().__init__(scope, id, **options)
        self.storage = Storage(
            self,
            "Storage",
            bucket_name=f"{settings.name}-{settings.account}-{settings.region}",
            noncurrent_days=settings.storage.noncurrent_days,
            logs=access_logs,
            removal=RemovalPolicy.RETAIN if settings.protect_data else RemovalPolicy.DESTROY,
        )
        for group, batch in settings.batch.items():
            RuleJobFiles(
                self,
                f"RuleJobFiles-{group}",
                group=group,
                bucket_name=settings.batch_bucket(group),
                noncurrent_days=settings.storage.noncurrent_days,
                keep_days=batch.keep_days,
                logs=access_logs,
                removal=RemovalPolicy.RETAIN if settings.protect_data else RemovalPolicy.DESTROY,
            )
        self.cluster: rds.DatabaseCluster | None = None
        self.instance: rds.DatabaseInstance | None = None
        self.database = self._database(settings, vpc)
        CfnOutput(self, "BucketName", value=self.storage.bucket.bucket_name)

    def _database(self, settings: Settings, vpc: ec2.IVpc) -> DatabaseEndpoint:
        options = settings.database.model_dump(exclude={"kind"})
        if isinstance(settings.database, ExistingDatabase):
            return existing_database(self, "Database", **options)
        if isinstance(settings.database, AuroraSettings):
            aurora = AuroraDatabase(self, "Database", vpc=vpc, protect=settings.protect_data, **options)
            self.cluster = aurora.cluster
            return aurora.endpoint
        instance = InstanceDatabase(self, "Database", vpc=vpc, protect=settings.protect_data, **options)
        self.instance = instance.instance
        return instance.endpoint
