"""What is removed goes as a whole, and takes nothing along that somebody else needs."""

import io
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State, StateType

from api.auth.callers import ANYONE, Caller, TokenScope
from api.jobs.changes import JobChanges
from api.jobs.disposal import Disposal
from api.jobs.removal import Removal
from api.jobs.submissions import Submissions
from api.jobs.visible_jobs import VisibleJobs
from api.operation.retention import Retention
from api.prefect.overview import Overview
from api.prefect.reads import JobReads
from api.settings import Settings
from api.web.problems import NotFound
from api.workflows.registry import Registry
from api.workflows.runs import RegisteredRuns
from flows.contract.sources import WorkflowSource
from flows.contract.spec import EngineName, JobSpec, Label
from flows.contract.storage import LocalStorage, bundle_key, bundle_use_key, open_storage
from tests.api.support import RuleJobInState, Worker, facade, get, submit, the_problem
from tests.flows.archives import HELLO, member, tar
from tests.support import unprivileged

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
    (directory / "work.partial").mkdir()  # of a worker that was killed while it staged
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


@pytest.mark.parametrize("state", [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING])
async def test_a_job_stays_while_another_is_to_go_on_with_it(
    own: httpx.AsyncClient, worker: Worker, prefect: PrefectClient, tmp_path: Path, state: StateType
) -> None:
    """Before that one has staged, nothing in the directories tells of it."""
    bundle = (await own.put("/bundles", content=tar(member("Snakefile", HELLO)))).json()["bundle"]
    job_id = await submit(own, engine="snakemake", workflow={"bundle": bundle})
    await worker.bring_to(job_id, StateType.FAILED)
    directory = directory_of(tmp_path, job_id)
    successor = (await own.post(f"/jobs/{job_id}/resume")).json()["id"]
    await prefect.set_flow_run_state(successor, State(type=state), force=True)

    problem = the_problem(await own.delete(f"/jobs/{job_id}"), 409)

    assert successor in problem["detail"]
    assert "cancel" in problem["resolution"]
    assert (directory / "work" / "result.txt").exists()
    await worker.bring_to(UUID(successor), StateType.CANCELLED)
    assert (await own.delete(f"/jobs/{job_id}")).status_code == 204
    assert not directory.exists()


async def test_who_resumes_a_job_that_never_ran_goes_on_with_the_one_before(
    own: httpx.AsyncClient, worker: Worker, tmp_path: Path, prefect: PrefectClient
) -> None:
    """What was done before would be lost otherwise: the one between has no directory."""
    bundle = (await own.put("/bundles", content=tar(member("Snakefile", HELLO)))).json()["bundle"]
    first = await submit(own, engine="snakemake", workflow={"bundle": bundle})
    await worker.bring_to(first, StateType.FAILED)
    directory = directory_of(tmp_path, first)
    between = (await own.post(f"/jobs/{first}/resume")).json()["id"]
    assert (await own.post(f"/jobs/{between}/cancel")).json()["status"] == "cancelled"

    last = (await own.post(f"/jobs/{between}/resume")).json()

    assert last["resumes"] == str(first)
    assert (await prefect.read_flow_run(last["id"])).labels[Label.WORK] == str(first)
    assert (await get(own, f"/jobs/{between}"))["resumed_by"] == last["id"]
    problem = the_problem(await own.delete(f"/jobs/{first}"), 409)
    assert last["id"] in problem["detail"]
    assert directory.exists()


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A directory that any user can reach, which `tmp_path` is not."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


async def test_a_job_whose_rules_have_made_a_directory_read_only_is_removed(
    prefect_api_url: str, worker: Worker, open_home: Path
) -> None:
    async with facade(prefect_api_url, Settings(home=open_home)) as api:
        job_id = await submit(api)
        await worker.bring_to(job_id, StateType.FAILED)
        directory = directory_of(open_home, job_id)
        (directory / "work").chmod(0o555)

        with unprivileged(open_home):
            response = await api.delete(f"/jobs/{job_id}")

    assert response.status_code == 204
    assert not directory.exists()


async def test_a_job_that_can_not_be_removed_is_the_operators_business(
    prefect_api_url: str, worker: Worker, open_home: Path
) -> None:
    async with facade(prefect_api_url, Settings(home=open_home)) as api:
        job_id = await submit(api)
        await worker.bring_to(job_id, StateType.FAILED)
        directory = directory_of(open_home, job_id)
        directory.parent.chmod(0o555)

        with unprivileged(open_home):
            problem = the_problem(await api.delete(f"/jobs/{job_id}"), 503)

        assert problem["type"].endswith(":storage-unavailable")
        assert await get(api, f"/jobs/{job_id}")
        directory.parent.chmod(0o755)
        assert (await api.delete(f"/jobs/{job_id}")).status_code == 204
        assert not directory.exists()


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


async def test_a_submission_that_is_refused_leaves_nothing_that_keeps_a_bundle(
    prefect_api_url: str, worker: Worker, tmp_path: Path
) -> None:
    async with facade(prefect_api_url, Settings(home=tmp_path, max_open_jobs_per_group=10**6)) as client:
        bundle = (await client.put("/bundles", content=tar(member("Snakefile", HELLO)))).json()["bundle"]
        spec = {"engine": "snakemake", "workflow": {"bundle": bundle}}
        job_id = await submit(client, **spec)
        the_problem(await client.post("/jobs", json=spec | {"group": "nowhere"}), 422)
    async with facade(prefect_api_url, Settings(home=tmp_path, max_open_jobs_per_group=1)) as client:
        the_problem(await client.post("/jobs", json=spec), 429)
        await worker.bring_to(job_id, StateType.COMPLETED)

        assert (await client.delete(f"/jobs/{job_id}")).status_code == 204

    assert not (tmp_path / "bundles" / bundle.replace(":", "/")).exists()


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


@pytest.fixture
async def alone(prefect: PrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow of its own: the jobs of other tests are old as well."""
    flow = f"retention-{uuid4()}"
    monkeypatch.setattr("api.prefect.groups.FLOW_NAME", flow)
    await prefect.create_deployment(
        await prefect.create_flow_from_name(flow), "default", enforce_parameter_schema=False
    )


@dataclass(frozen=True, slots=True)
class InThisProcess:
    """What the facade is made of, where a test works with the parts."""

    overview: Overview
    visible: VisibleJobs
    submissions: Submissions
    removal: Removal

    @classmethod
    def of(cls, prefect: PrefectClient, home: Path) -> Self:
        settings = Settings(home=home)
        storage = open_storage(settings)
        disposal = Disposal(storage, home)
        reads = JobReads.of(prefect, 8, "http://prefect")
        return cls(
            Overview(prefect, 8),
            VisibleJobs(ANYONE, reads),
            Submissions(reads.flow_runs, disposal, settings, storage, RegisteredRuns(Registry(storage))),
            Removal(reads.flow_runs, disposal),
        )

    async def submit(self, spec: JobSpec) -> UUID:
        return (await self.submissions.submit(self.visible, spec)).id

    def retention(self, age: timedelta = timedelta(), caller: Caller = ANYONE) -> Retention:
        jobs = VisibleJobs(caller, self.visible.reads)
        return Retention(self.overview, self.removal, jobs, age, timedelta(hours=1))


@pytest.mark.usefixtures("alone")
async def test_old_jobs_are_removed_and_others_are_not(
    prefect: PrefectClient, worker: Worker, tmp_path: Path
) -> None:
    jobs = InThisProcess.of(prefect, tmp_path)
    spec = JobSpec(engine=EngineName.MOCK)
    old, running = await jobs.submit(spec), await jobs.submit(spec)
    await worker.bring_to(old, StateType.FAILED)
    await prefect.set_flow_run_state(running, State(type=StateType.RUNNING), force=True)
    await anyio.sleep(1)
    new = await jobs.submit(spec)
    await worker.bring_to(new, StateType.COMPLETED)
    ended_at = [(await prefect.read_flow_run(job_id)).end_time for job_id in (old, new)]
    assert ended_at[0] is not None
    assert ended_at[1] is not None
    between = ended_at[0] + (ended_at[1] - ended_at[0]) / 2

    assert await jobs.retention(datetime.now(UTC) - between).remove_old_jobs() == 1

    with pytest.raises(NotFound):
        await jobs.visible.get(old)
    assert {(await jobs.visible.get(job_id)).status for job_id in (new, running)} == {"completed", "running"}


@pytest.mark.usefixtures("alone")
async def test_old_jobs_that_stay_keep_no_other_from_being_removed(
    prefect: PrefectClient, worker: Worker, open_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that somebody goes on with, nor one that the disk keeps; each is tried once a look."""
    monkeypatch.setattr("api.prefect.overview.MAX_LIMIT", 1)
    jobs = InThisProcess.of(prefect, open_home)
    bundles = [f"sha256:{number:064}" for number in range(2)]
    for bundle in bundles:
        open_storage(Settings(home=open_home)).put(bundle_key(bundle), io.BytesIO(b"x"))
    specs = [JobSpec(workflow=WorkflowSource(bundle=bundle)) for bundle in bundles]
    old = [await jobs.submit(spec) for spec in (*specs, JobSpec(engine=EngineName.MOCK))]
    for job_id in old:
        await worker.bring_to(job_id, StateType.FAILED)
    await jobs.submissions.resume(jobs.visible, old[1], JobChanges())
    (open_home / bundle_use_key(bundles[0])).chmod(0o555)

    with unprivileged(open_home), anyio.fail_after(30):
        assert await jobs.retention().remove_old_jobs() == 1

    assert {(await jobs.visible.get(job_id)).status for job_id in old[:2]} == {"failed"}
    with pytest.raises(NotFound):
        await jobs.visible.get(old[2])


@pytest.mark.usefixtures("alone")
async def test_a_look_ends_where_all_that_is_old_is_gone_for_others(
    prefect: PrefectClient, worker: Worker, tmp_path: Path
) -> None:
    """As where the group of old jobs was deleted a moment ago, and one cache still knows it."""
    jobs = InThisProcess.of(prefect, tmp_path)
    job_id = await jobs.submit(JobSpec(engine=EngineName.MOCK))
    await worker.bring_to(job_id, StateType.FAILED)
    stranger = Caller("stranger", TokenScope.ADMIN, frozenset())

    with anyio.fail_after(30):
        assert await jobs.retention(caller=stranger).remove_old_jobs() == 0

    assert await jobs.visible.get(job_id)
