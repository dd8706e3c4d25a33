"""A job from a git repository: what the facade tells at once, without asking any git server."""

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from flows.contract.spec import Label
from tests.api.support import Worker, get, submit, the_problem, wait_until

pytestmark = pytest.mark.anyio


async def test_a_job_from_a_git_repository_is_made(api: httpx.AsyncClient) -> None:
    workflow = {"git": "https://git.example.org/owner/repository", "ref": "v1.2.0", "subdir": "workflow"}

    response = await api.post("/jobs", json={"workflow": workflow})

    assert response.status_code == 201, response.text
    assert response.json()["commit"] is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://github.com/owner/repository", "scheme"),
        ("file:///etc", "scheme"),
        ("https://localhost/owner/repository", "not public"),
        ("https://169.254.169.254/latest", "not public"),
        ("https://[::ffff:127.0.0.1]/x", "not public"),
        ("https://me:secret@github.com/owner/repository", "password"),
    ],
)
async def test_an_address_that_may_not_be_used_is_refused_at_its_place(
    api: httpx.AsyncClient, prefect: PrefectClient, address: str, reason: str
) -> None:
    before = await prefect.count_flow_runs()

    response = await api.post("/jobs", json={"workflow": {"git": address}})

    problem = the_problem(response, 422)
    assert problem["type"].endswith(":workflow-refused")
    assert problem["errors"][0]["pointer"] == "#/workflow/git"
    assert reason in problem["detail"]
    assert "secret" not in response.text
    assert await prefect.count_flow_runs() == before


async def test_the_commit_is_shown_once_it_is_known(api: httpx.AsyncClient, worker: Worker) -> None:
    commit = "9fceb02d0ae598e95dc970b74767f19372d61af8"
    job_id = await submit(api)
    await worker.label(job_id, {Label.WORKFLOW_COMMIT: commit})

    async def is_shown() -> bool:
        return bool((await get(api, f"/jobs/{job_id}"))["commit"] == commit)

    await wait_until(is_shown, "the commit is shown")
