"""A group whose rule jobs are jobs of AWS Batch: what the CDK makes for it, in moto's account."""

import json
from pathlib import Path

from moto.core.models import DEFAULT_ACCOUNT_ID

from flows.contract.environments import EnvironmentSettings
from flows.environments.making import Environments
from tests.conftest import ENVIRONMENTS
from tests.ecs.aws import REGION, Aws, client
from tests.flows.cluster.batch import Batch, run_jobs_as_processes

GROUP = "large"
RULE_JOBS = "rule-jobs"
"""The directory of their disks."""

BUCKET = "rule-jobs-of-large"
DEFINITION = "rule-jobs-of-large"
BATCH_ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/heads-of-large"
BATCH_SECONDS = 905
"""botocore renews credentials 900 seconds before they expire."""

_PLUGIN = "snakemake-executor-plugin-aws-batch"


def rule_jobs_on_batch(aws: Aws, directory: Path) -> dict[str, str]:
    """The variables that declare it. Its nodes have the programs of an environment, as an image has them."""
    directory.mkdir()
    environments = Environments(EnvironmentSettings(environments_directory=ENVIRONMENTS), ENVIRONMENTS, print)
    environment = environments.get(environments.wanted(None, more=(_PLUGIN,)))
    of_image = {"PATH": f"{environment.python.parent}:/usr/bin:/bin"}
    run_jobs_as_processes(directory, aws.environment | of_image)
    client("s3", aws.endpoint_url).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    batch = Batch(directory, aws.environment)
    batch.register(DEFINITION)
    executor = {
        "executor": "aws-batch",
        "settings": {"region": REGION, "job_queue": batch.create_queue(), "job_role": BATCH_ROLE},
        "job_definition": DEFINITION,
        "default_storage": {"provider": "s3", "prefix": f"s3://{BUCKET}/{{job_id}}"},
    }
    return {"JOBS_EXECUTORS": json.dumps({GROUP: executor})}
