"""The head of a job gets credentials for its own rule jobs on AWS Batch, and for nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from pydantic import SecretStr

from api.gateway.batch_access import session_policy
from api.settings import Settings
from flows.contract.executors import ClusterExecutor
from flows.contract.job_tokens import BATCH_PATH, GATEWAY_PATH, make_token
from flows.contract.sources import DefaultStorage
from flows.contract.spec import Label
from tests.api.support import Worker, facade, submit, the_problem
from tests.flows.s3 import Bucket, s3_bucket

SECRET = "a secret of this service, long enough"
ROLE = "arn:aws:iam::111122223333:role/heads-of-large"
HERE = "arn:aws:batch:eu-central-1:111122223333"
OWN, OTHER = UUID(int=1), UUID(int=2)


def cluster(bucket: str = "rule-jobs-of-large") -> ClusterExecutor:
    return ClusterExecutor(
        executor="aws-batch",
        settings={"region": "eu-central-1", "job_queue": f"{HERE}:job-queue/large", "job_role": ROLE},
        job_definition="large",
        default_storage=DefaultStorage(provider="s3", prefix=f"s3://{bucket}/{{job_id}}"),
    )


def may(action: str, resource: str, tag: UUID | None = None) -> bool:
    """With the tag of a request, or of the job of Batch that it concerns."""
    policy = IAMPolicy(session_policy(OWN, cluster().for_job(OWN)))
    tags = {f"aws:{kind}/prefect-snakemake-job": str(tag) for kind in ("RequestTag", "ResourceTag")}
    found = policy.is_action_permitted(action, resource, incoming_condition_values=tags)
    return found is PermissionResult.PERMITTED


@pytest.mark.parametrize("place", ["job-queue/large", "job-definition/large", "job-definition/large:3"])
def test_rule_jobs_are_submitted_to_the_queue_of_the_group_with_the_tag_of_the_job(place: str) -> None:
    assert may("batch:SubmitJob", f"{HERE}:{place}", OWN)
    assert not may("batch:SubmitJob", f"{HERE}:{place}", OTHER)
    assert not may("batch:SubmitJob", f"{HERE}:{place}")


@pytest.mark.parametrize("place", ["job-queue/small", "job-definition/small:1", "job-definition/large-2:1"])
def test_queues_and_definitions_of_others_are_not_used(place: str) -> None:
    assert not may("batch:SubmitJob", f"{HERE}:{place}", OWN)


def test_only_rule_jobs_of_the_job_are_ended() -> None:
    assert may("batch:TerminateJob", f"{HERE}:job/1", OWN)
    assert not may("batch:TerminateJob", f"{HERE}:job/1", OTHER)


def test_a_rule_job_gets_no_other_tag() -> None:
    assert may("batch:TagResource", f"{HERE}:job/1", OWN)
    assert not may("batch:TagResource", f"{HERE}:job/1", OTHER)
    assert not may("batch:TagResource", f"{HERE}:job-queue/large", OWN)


def test_files_are_those_of_the_job() -> None:
    bucket = "arn:aws:s3:::rule-jobs-of-large"
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert may(action, f"{bucket}/{OWN}/results/a.txt")
        assert not may(action, f"{bucket}/{OTHER}/results/a.txt")
    assert may("s3:ListBucket", bucket)
    assert not may("s3:DeleteBucket", bucket)


@pytest.mark.parametrize("action", ["batch:RegisterJobDefinition", "iam:PassRole", "sts:AssumeRole"])
def test_no_role_is_passed_on(action: str) -> None:
    assert not may(action, ROLE)
    assert not may(action, f"{HERE}:job-definition/large")


@pytest.mark.anyio
async def test_a_head_gets_credentials_while_its_job_runs(
    prefect_api_url: str, prefect: PrefectClient, home: Path, worker: Worker
) -> None:
    with s3_bucket() as bucket:
        async with facade(prefect_api_url, settings_for("large", bucket, home)) as api:
            job_id = await submit(api)
            of_another_group = await asked(api, job_id)
        async with facade(prefect_api_url, settings_for("default", bucket, home)) as api:
            made = (await asked(api, job_id)).raise_for_status()
            of_nobody = await api.get(f"{GATEWAY_PATH}{BATCH_PATH}")
            await worker.bring_to(job_id, StateType.FAILED)
            after = await asked(api, job_id)
            successor = await submit(api)
            await prefect.update_flow_run_labels(successor, {Label.WORK.value: str(job_id)})
            (await asked(api, successor)).raise_for_status()

        assert made.headers["cache-control"] == "no-store"
        credentials = made.json()
        lifetime = datetime.fromisoformat(credentials.pop("Expiration")) - datetime.now(UTC)
        assert timedelta(minutes=10) < lifetime <= timedelta(minutes=15)
        assert credentials.keys() == {"Version", "AccessKeyId", "SecretAccessKey", "SessionToken"}
        # Without it, the plugin could remove the bucket. A job that resumes another one has its files.
        assert bucket.object_keys() == {f"{job_id}/kept"}
    the_problem(of_another_group, 403)
    the_problem(of_nobody, 401)
    the_problem(after, 403)


def settings_for(group: str, bucket: Bucket, home: Path) -> Settings:
    """Rule jobs of one group are jobs of AWS Batch."""
    return Settings(
        home=home,
        gateway_secret=SecretStr(SECRET),
        gateway_batch_role_arns={"large": ROLE, "default": ROLE},
        gateway_batch_seconds=900,
        executors={group: cluster(bucket.name)},
    )


async def asked(api: httpx.AsyncClient, job_id: UUID) -> httpx.Response:
    token = make_token(SECRET, job_id, datetime.now(UTC), timedelta(minutes=1))
    return await api.get(f"{GATEWAY_PATH}{BATCH_PATH}", auth=("job", token))
