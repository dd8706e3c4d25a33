"""An Idempotency-Key makes one job of a submission, however often it is sent."""

import shutil
from pathlib import Path
from uuid import uuid4

import anyio
import httpx
import pytest

from tests.api.support import the_problem, walk
from tests.flows.archives import HELLO, member, tar

pytestmark = pytest.mark.anyio

SPEC = {"engine": "mock", "tags": {"project": "once"}}


async def test_the_same_key_and_body_give_the_same_job(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid4())}

    first = await api.post("/jobs", json=SPEC, headers=key)
    # What is left out and what is said as the default are the same body.
    again = await api.post("/jobs", json={**SPEC, "group": "default", "cores": 1}, headers=key)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == again.headers["location"]


async def test_a_key_that_is_sent_by_many_at_once_makes_one_job(service_url: str) -> None:
    name = str(uuid4())
    ids = set()
    async with httpx.AsyncClient(base_url=service_url, timeout=60) as client:

        async def submit() -> None:
            response = await client.post(
                "/jobs", json={**SPEC, "name": name}, headers={"Idempotency-Key": name}
            )
            assert response.status_code == 201, response.text
            ids.add(response.json()["id"])

        async with anyio.create_task_group() as clients:
            for _ in range(30):
                clients.start_soon(submit)
        jobs = await walk(client, "/jobs", name=name)

    assert len(ids) == 1
    assert [job["id"] for job in jobs] == list(ids)


async def test_the_same_key_with_another_body_is_refused(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    first = await api.post("/jobs", json=SPEC, headers=key)

    for changed in ({"cores": 2}, {"name": "other"}, {"group": "large"}):
        problem = the_problem(await api.post("/jobs", json=SPEC | changed, headers=key), 422)
        assert problem["type"].endswith(":idempotency-key-reused")
        assert first.json()["id"] in problem["detail"]


@pytest.mark.parametrize("source", ["path", "bundle"])
async def test_a_repeat_gives_the_job_also_when_its_workflow_is_gone(
    api: httpx.AsyncClient, home: Path, workflow_root: Path, source: str
) -> None:
    """A client that was not answered asks again, whatever has become of the files meanwhile."""
    workflow = workflow_root / str(uuid4())
    if source == "path":
        workflow.mkdir()
        (workflow / "Snakefile").write_bytes(HELLO)
        spec = {"workflow": {"path": str(workflow)}}
    else:
        sent = await api.put("/bundles", content=tar(member("Snakefile", HELLO), member(uuid4().hex, b"")))
        spec = {"workflow": {"bundle": sent.json()["bundle"]}}
        workflow = home / "bundles" / sent.json()["bundle"].replace(":", "/")
    key = {"Idempotency-Key": str(uuid4())}
    first = await api.post("/jobs", json=spec, headers=key)
    assert first.status_code == 201, first.text
    shutil.rmtree(workflow) if workflow.is_dir() else workflow.unlink()

    again = await api.post("/jobs", json=spec, headers=key)

    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    problem = the_problem(await api.post("/jobs", json={**spec, "cores": 2}, headers=key), 422)
    assert problem["type"].endswith(":idempotency-key-reused")
    new_key = {"Idempotency-Key": str(uuid4())}
    problem = the_problem(await api.post("/jobs", json=spec, headers=new_key), 422)
    assert problem["type"].endswith(":workflow-refused")


async def test_a_wes_submission_is_made_once_too(api: httpx.AsyncClient) -> None:
    form = {"workflow_type": "SMK", "workflow_type_version": "1.0", "workflow_url": "Snakefile"}
    files = [("workflow_attachment", ("Snakefile", HELLO))]
    key = {"Idempotency-Key": str(uuid4())}

    runs = [
        (await api.post("/ga4gh/wes/v1/runs", data=form, files=files, headers=key)).json() for _ in range(2)
    ]
    other = await api.post("/ga4gh/wes/v1/runs", data=form | {"tags": '{"a": "b"}'}, files=files, headers=key)

    assert runs[0] == runs[1]
    assert runs[0]["run_id"] in other.json()["msg"]
    assert other.status_code == 400


async def test_without_a_key_every_submission_makes_a_job(api: httpx.AsyncClient) -> None:
    ids = {(await api.post("/jobs", json=SPEC)).json()["id"] for _ in range(2)}

    assert len(ids) == 2


@pytest.mark.parametrize("key", ["", "two words", "x" * 201, "ü"])
async def test_a_key_must_be_a_word(api: httpx.AsyncClient, key: str) -> None:
    response = await api.post("/jobs", json=SPEC, headers=[(b"Idempotency-Key", key.encode())])

    assert the_problem(response, 422)["errors"]
