"""The credentials of a job open its own files, and nothing else in the bucket."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult
from prefect.client.schemas.objects import StateType
from pydantic import SecretStr

from api.gateway.storage_access import Files, session_policy
from api.settings import Settings
from flows.contract.job_tokens import GATEWAY_PATH, STORAGE_PATH, make_token
from tests.api.support import Worker, facade, submit, the_problem
from tests.flows.s3 import s3_bucket

BUCKET = "arn:aws:s3:::jobs"
OWN, BEFORE, OTHER = (UUID(int=number) for number in range(3))
BUNDLE = f"sha256:{'0' * 64}"
POLICY = session_policy(Files(OWN, BEFORE, BUNDLE), "s3://jobs/store", "aws")
SECRET = "a secret of this service, long enough"


def may(action: str, key: str, policy: str = POLICY) -> bool:
    found = IAMPolicy(policy).is_action_permitted(action, f"{BUCKET}/{key}")
    return found is PermissionResult.PERMITTED


@pytest.mark.parametrize("name", ["outputs.json", "work.tar", "work/results/calls.vcf"])
def test_own_files_are_read_and_written(name: str) -> None:
    assert may("s3:PutObject", f"store/jobs/{OWN}/{name}")
    assert may("s3:GetObject", f"store/jobs/{OWN}/{name}")


def test_what_the_job_begins_with_is_read_and_not_written() -> None:
    for key in (f"store/jobs/{BEFORE}/work.tar", f"store/bundles/sha256/{'0' * 64}"):
        assert may("s3:GetObject", key)
        assert not may("s3:PutObject", key)


@pytest.mark.parametrize(
    "key",
    [
        f"store/jobs/{OTHER}/outputs.json",
        f"store/bundles/sha256/{'1' * 64}",
        f"store/jobs/{OWN}",
        f"jobs/{OWN}/x",
        "",
    ],
)
@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"])
def test_nothing_else_is(action: str, key: str) -> None:
    assert not may(action, key)


def test_a_job_removes_nothing_and_lists_nothing() -> None:
    for action in ("s3:DeleteObject", "s3:ListBucket", "s3:PutBucketPolicy", "sts:AssumeRole"):
        assert not may(action, f"store/jobs/{OWN}/outputs.json")


def test_a_job_that_begins_with_nothing_reads_its_own_only() -> None:
    policy = session_policy(Files(OWN), "s3://jobs", "aws")

    assert may("s3:GetObject", f"jobs/{OWN}/outputs.json", policy)
    assert not may("s3:GetObject", f"jobs/{BEFORE}/work.tar", policy)


@pytest.mark.anyio
async def test_a_task_gets_credentials_while_its_job_runs(
    prefect_api_url: str, home: Path, worker: Worker
) -> None:
    with s3_bucket() as bucket:
        settings = Settings(
            home=home,
            gateway_secret=SecretStr(SECRET),
            gateway_storage_role_arn="arn:aws:iam::123456789012:role/files-of-jobs",
            storage_url=f"s3://{bucket.name}/store",
        )
        async with facade(prefect_api_url, settings) as api:
            job_id = await submit(api)

            made = (await asked(api, job_id)).raise_for_status()
            await worker.bring_to(job_id, StateType.FAILED)
            after = await asked(api, job_id)

    assert made.headers["cache-control"] == "no-store"
    credentials = made.json()
    assert credentials["access_key_id"].startswith("ASIA")
    lifetime = datetime.fromisoformat(credentials["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=50) < lifetime <= timedelta(hours=1)
    the_problem(after, 403)


async def asked(api: httpx.AsyncClient, job_id: UUID) -> httpx.Response:
    token = make_token(SECRET, job_id, datetime.now(UTC), timedelta(minutes=1))
    return await api.get(f"{GATEWAY_PATH}{STORAGE_PATH}", auth=("job", token))
