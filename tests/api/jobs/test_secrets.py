"""Secrets and variables of a job: what the facade refuses, and how the operator allows it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import Settings
from tests.api.support import MOCK_JOB, facade, the_problem

pytestmark = pytest.mark.anyio


async def test_a_secret_of_another_group_is_refused_by_name(prefect_api_url: str, home: Path) -> None:
    settings = Settings(home=home, secret_blocks={"large": ("ncbi",), "*": ("shared",)})
    secrets = {"NCBI_KEY": "ncbi", "SHARED": "shared"}
    async with facade(prefect_api_url, settings) as api:
        refused = await api.post("/jobs", json=MOCK_JOB | {"secrets": secrets})
        allowed = await api.post("/jobs", json=MOCK_JOB | {"secrets": secrets, "group": "large"})

    problem = the_problem(refused, 422)
    assert problem["type"].endswith(":secret-not-allowed")
    assert [error["pointer"] for error in problem["errors"]] == ["#/secrets/NCBI_KEY"]
    assert "'default'" in problem["detail"]
    assert "'ncbi'" in problem["detail"]
    assert (
        'JOBS_SECRET_BLOCKS lists the blocks of each group, for example {"default": ["ncbi"]}'
        in (problem["resolution"])
    )
    assert allowed.status_code == 201


async def test_without_the_setting_no_secret_is_allowed(api: httpx.AsyncClient) -> None:
    response = await api.post("/jobs", json=MOCK_JOB | {"secrets": {"KEY": "ncbi"}})

    assert the_problem(response, 422)["errors"][0]["pointer"] == "#/secrets/KEY"


@pytest.mark.parametrize(
    ("spec", "pointer", "reason"),
    [
        ({"env": {"PATH": "/bin"}}, "#/env/PATH", "a job can't set PATH"),
        ({"secrets": {"PREFECT_API_KEY": "x"}}, "#/secrets/PREFECT_API_KEY", "belong to the service"),
        (
            {"default_storage": {"provider": "s3", "prefix": "s3://b", "settings": {"secret_key": "x"}}},
            "#/default_storage/settings/secret_key",
            "set SNAKEMAKE_STORAGE_S3_SECRET_KEY in `secrets`",
        ),
    ],
)
async def test_what_a_job_can_t_set_is_refused_at_its_place(
    api: httpx.AsyncClient, spec: dict[str, Any], pointer: str, reason: str
) -> None:
    problem = the_problem(await api.post("/jobs", json=MOCK_JOB | spec), 422)

    (error,) = problem["errors"]
    assert error["pointer"] == pointer
    assert reason in error["message"]
