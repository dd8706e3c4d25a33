"""What is removed goes as a whole, and takes nothing along that somebody else needs."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType

from api.disposal import Disposal
from api.jobs import Jobs
from api.operation.retention import Retention
from api.overview import Overview
from api.problems import NotFound
from api.settings import Settings
from flows.spec import EngineName, JobSpec
from flows.storage import LocalStorage, open_storage
from tests.api.support import RuleJobInState, Worker, facade, get, submit, the_problem
from tests.flows.archives import HELLO, member, tar

pytestmark = pytest.mark.anyio


@pytest.fixture
async def own(prefect_api_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A facade whose home is `tmp_path`."""
    async with facade(prefect_api_url, Settings(home=tmp_path)) as client:
        yield client


def directory_of(home: Path, job_id: UUID) -> Path:
    """As the worker leaves it."""
    directory = home / "jobs" / str(job_id)
    (directory / "work" / ".snakemake").mkdir(parents=True)
    for file in ("work/result.txt", "work.lock", "flow.pid", "events.jsonl", "snakemake.log", "outputs.json"):
        (directory / file).write_text("{}")
    return directory


async def test_a_job_that_is_removed_leaves_nothing(
    own: httpx.AsyncClient, worker: Worker, prefect: PrefectClient, tmp_path: Path
) -> None:
    job_id = await submit(own)
    await worker.record(job_id, [RuleJobInState(1)])
    await worker.bring_to(job_id, StateType.COMPLETED)
    directory = directory_of(tmp_path, job_id)

    response = await own.delete(f"/jobs/{job_id}")

    assert (response.status_code, response.content) == (204, b"")
    assert not directory.exists()
    the_problem(await own.get(f"/jobs/{job_id}"), 404)
    the_problem(await own.delete(f"/jobs/{job_id}"), 404)
    task_runs = {"flow_run_id": {"any_": [str(job_id)]}}
    count = await prefect.request("POST", "/task_runs/count", json={"task_runs": task_runs})
    assert count.json() == 0


@pytest.mark.parametrize("state", [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING])
async def test_a_job_that_has_not_ended_stays(
    own: httpx.AsyncClient, prefect: PrefectClient, tmp_path: Path, state: StateType
) -> None:
    job_id = await submit(own)
    await prefect.set_flow_run_state(job_id, State(type=state), force=True)
    directory = directory_of(tmp_path, job_id)

    the_problem(await own.delete(f"/jobs/{job_id}"), 409)

    assert directory.exists()
    assert await get(own, f"/jobs/{job_id}")


async def test_a_bundle_goes_with_the_last_job_that_needs_it(
    own: httpx.AsyncClient, worker: Worker, tmp_path: Path
) -> None:
    bundle = (await own.put("/bundles", content=tar(member("Snakefile", HELLO)))).json()["bundle"]
    blob = tmp_path / "bundles" / bundle.replace(":", "/")
    spec = {"engine": "snakemake", "workflow": {"bundle": bundle}}
    one, two = await submit(own, **spec), await submit(own, **spec)
    for job_id in (one, two):
        await worker.bring_to(job_id, StateType.FAILED)
    three = (await own.post(f"/jobs/{two}/resume")).json()["id"]
    await worker.bring_to(three, StateType.COMPLETED)

    for job_id in (one, two):
        assert (await own.delete(f"/jobs/{job_id}")).status_code == 204
        assert blob.exists()
    assert (await own.delete(f"/jobs/{three}")).status_code == 204
    assert not blob.exists()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_a_directory_goes_with_the_last_job_that_worked_in_it(tmp_path: Path, order: tuple[int, ...]) -> None:
    disposal = Disposal(LocalStorage(tmp_path), tmp_path)
    chain = [uuid4() for _ in range(3)]
    first = directory_of(tmp_path, chain[0])
    for job_id in chain[1:]:
        directory = tmp_path / "jobs" / str(job_id)
        directory.mkdir()
        (directory / "work").symlink_to(Path("..", str(chain[0]), "work"))
        (directory / "outputs.json").write_text("{}")
    other = directory_of(tmp_path, uuid4())

    for removed in order:
        assert (first / "work" / "result.txt").exists()
        disposal.remove_job(chain[removed])
        disposal.remove_job(chain[removed])  # once more, as after a failure half-way

    assert list((tmp_path / "jobs").iterdir()) == [other]
    assert (other / "work" / "result.txt").exists()


async def test_old_jobs_are_removed_and_others_are_not(
    prefect: PrefectClient, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A flow of its own: the jobs of other tests are old as well.
    flow = f"retention-{uuid4()}"
    monkeypatch.setattr("api.overview.FLOW_NAME", flow)
    monkeypatch.setattr("api.jobs.FLOW_NAME", flow)
    await prefect.create_deployment(await prefect.create_flow_from_name(flow), "default")
    settings = Settings(home=tmp_path)
    jobs = Jobs(prefect, settings, open_storage(settings), "http://prefect")
    spec = JobSpec(engine=EngineName.MOCK)
    old, running = (await jobs.submit(spec)).id, (await jobs.submit(spec)).id
    await worker.bring_to(old, StateType.FAILED)
    await prefect.set_flow_run_state(running, State(type=StateType.RUNNING), force=True)
    await anyio.sleep(1)
    new = (await jobs.submit(spec)).id
    await worker.bring_to(new, StateType.COMPLETED)
    ended_at = [(await prefect.read_flow_run(job_id)).end_time for job_id in (old, new)]
    assert ended_at[0] is not None
    assert ended_at[1] is not None
    between = ended_at[0] + (ended_at[1] - ended_at[0]) / 2

    retention = Retention(Overview(prefect, 8), jobs, datetime.now(UTC) - between, timedelta(hours=1))

    assert await retention.remove_some() == 1
    with pytest.raises(NotFound):
        await jobs.get(old)
    assert {(await jobs.get(job_id)).status for job_id in (new, running)} == {"completed", "running"}
