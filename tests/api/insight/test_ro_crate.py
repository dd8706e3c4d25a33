"""`GET /jobs/{id}/ro-crate`: a crate that the RO-Crate community's validator accepts, offline."""

import io
import json
import zipfile
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.schemas.objects import StateType
from requests.structures import CaseInsensitiveDict
from requests_cache import CachedSession
from requests_cache.models.request import CachedRequest
from requests_cache.models.response import CachedResponse
from rocrate.rocrate import ROCrate
from rocrate_validator import services
from rocrate_validator.models import Severity, ValidationSettings

from api.insight.crates import METADATA, MOST_RULE_JOBS, SPEC
from flows.contract.environments import EnvironmentRecord
from flows.contract.manifest import FileKind
from flows.contract.spec import ExecutionSpec, Label, RuleJobRecord, RuleJobState
from flows.workspace.settings import WorkspaceSettings
from flows.workspace.workspace import Workspace
from tests.api.support import RuleJobInState, Worker, submit, the_problem

pytestmark = pytest.mark.anyio

PROVENANCE = "provenance-run-crate-0.5"
"""Builds on Workflow Run Crate 0.5, Process Run Crate 0.5, Workflow RO-Crate 1.0 and RO-Crate 1.1."""

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
OTHERWISE_IN_1_1 = {
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
}

SNAKEFILE = "rule all:\n    input: 'results/Zoë calls.vcf'\n"
CONFIG = {"samples": ["A", "B"], "depth": 30, "a name/with # signs": "ä"}
OUTPUT = "results/Zoë calls.vcf"
LOG = "results/call.log"

ENVIRONMENT = EnvironmentRecord(
    digest="0123456789abcdef", python="3.12.1", packages=("pandas==3.1.1", "snakemake==9.14.0")
)

RULE_JOBS = [
    RuleJobInState(
        1,
        record=RuleJobRecord(
            rule="call",
            wildcards={"sample": "A"},
            shell="bcftools call",
            outputs=(OUTPUT, "temporary.bam"),
            cpu_seconds=12.5,
            peak_memory_bytes=1 << 28,
        ),
    ),
    RuleJobInState(
        2, StateType.FAILED, record=RuleJobRecord(rule="plot", inputs=(OUTPUT,), error="exit code 1")
    ),
    RuleJobInState(3, StateType.COMPLETED, RuleJobState.SKIPPED, "fetch", attempts=0),
    RuleJobInState(4, StateType.CANCELLED, RuleJobState.NOT_RUN, "all", attempts=0),
]


async def an_ended_job(
    api: httpx.AsyncClient,
    worker: Worker,
    home: Path,
    workflow_root: Path,
    state: StateType = StateType.COMPLETED,
    rule_jobs: list[RuleJobInState] | None = None,
    snakefile: str = "workflow/Snakefile",
) -> UUID:
    """A job that the real workspace has staged and published."""
    workflow = workflow_root / "crated"
    (workflow / snakefile).parent.mkdir(parents=True, exist_ok=True)
    (workflow / snakefile).write_text(SNAKEFILE)
    body = {
        "engine": "snakemake",
        "name": "trio <1> & 'co'",
        "workflow": {"path": str(workflow)},
        "snakefile": snakefile,
        "config": CONFIG,
    }
    job_id = await submit(api, **body)
    workspace = Workspace(WorkspaceSettings(home=home, workflow_roots=(workflow_root,)), job_id)
    workspace.directory.mkdir(parents=True)
    workspace.stage(ExecutionSpec.model_validate({name: body[name] for name in ("workflow", "snakefile")}))
    workspace.record_environment(ENVIRONMENT)
    output = workspace.work / OUTPUT
    output.parent.mkdir(exist_ok=True)
    output.write_text("##fileformat=VCFv4.2\n")
    (workspace.work / LOG).write_text("called 1 variant\n")
    workspace.publish([OUTPUT], {FileKind.LOG: [LOG]})
    await worker.record(job_id, RULE_JOBS if rule_jobs is None else rule_jobs)
    await worker.label(job_id, {Label.PROGRESS_DONE: 1, Label.PROGRESS_TOTAL: 4})
    await worker.bring_to(job_id, state, "plot[n=2] failed")
    return job_id


async def crate_of(api: httpx.AsyncClient, job_id: UUID) -> zipfile.ZipFile:
    response = await api.get(f"/jobs/{job_id}/ro-crate")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(response.content))


def entities(crate: zipfile.ZipFile) -> dict[str, Any]:
    return {entity["@id"]: entity for entity in json.loads(crate.read(METADATA))["@graph"]}


@pytest.fixture(scope="module")
def http_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the validator reads instead of the internet: the context of RO-Crate 1.1.

    The one that the library `rocrate` brings is of 1.3; of the terms that crates of ours use, only
    those in `OTHERWISE_IN_1_1` have other addresses.
    """
    path = str(tmp_path_factory.mktemp("validator") / "cache")
    packaged = json.loads((resources.files("rocrate") / "data" / "ro-crate.jsonld").read_text())
    context = {"@context": packaged["@context"] | OTHERWISE_IN_1_1}
    with CachedSession(path, backend="sqlite", expire_after=-1) as session:
        request = CachedRequest(method="GET", url=CONTEXT)
        content = json.dumps(context).encode()
        headers = CaseInsensitiveDict({"Content-Type": "application/ld+json"})
        session.cache.save_response(
            CachedResponse(content, headers=headers, request=request, status_code=200, url=CONTEXT)
        )
    return path


def issues(crate: Path, http_cache: str, profile: str = PROVENANCE) -> list[str]:
    """What the validator finds missing, of all that the profile and those that it builds on require."""
    settings = ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier=profile,
        requirement_severity=Severity.REQUIRED,
        offline=True,
        cache_path=http_cache,
        skip_availability_check=True,  # of the outputs: no socket serves them here
    )
    found = services.validate(settings).get_issues()
    return [f"{issue.check.identifier}: {issue.message}" for issue in found]


async def test_it_names_every_package_of_the_environment(
    api: httpx.AsyncClient, worker: Worker, home: Path, workflow_root: Path
) -> None:
    found = entities(await crate_of(api, await an_ended_job(api, worker, home, workflow_root)))
    required = {item["@id"] for item in found["workflow/Snakefile"]["softwareRequirements"]}
    assert required == {"#package/python", "#package/pandas", "#package/snakemake"}
    assert found["#package/pandas"]["softwareVersion"] == "3.1.1"
    assert found["#snakemake"]["softwareVersion"] == "9.14.0"


@pytest.mark.parametrize("state", [StateType.COMPLETED, StateType.FAILED])
async def test_the_validator_accepts_it(
    api: httpx.AsyncClient,
    worker: Worker,
    home: Path,
    workflow_root: Path,
    tmp_path: Path,
    http_cache: str,
    state: StateType,
) -> None:
    job_id = await an_ended_job(api, worker, home, workflow_root, state)

    (await crate_of(api, job_id)).extractall(tmp_path)

    assert issues(tmp_path, http_cache) == []


@pytest.mark.parametrize(
    ("identifier", "lost"),
    [("./", "datePublished"), ("#engine-run", "object")],
)
async def test_the_validator_would_find_what_is_missing(
    api: httpx.AsyncClient,
    worker: Worker,
    home: Path,
    workflow_root: Path,
    tmp_path: Path,
    http_cache: str,
    identifier: str,
    lost: str,
) -> None:
    job_id = await an_ended_job(api, worker, home, workflow_root, snakefile="Snakefile")
    (await crate_of(api, job_id)).extractall(tmp_path)
    metadata = json.loads((tmp_path / METADATA).read_text())
    del next(entity for entity in metadata["@graph"] if entity["@id"] == identifier)[lost]
    (tmp_path / METADATA).write_text(json.dumps(metadata))

    assert any(lost in issue for issue in issues(tmp_path, http_cache))


async def test_it_tells_what_ran_and_what_came_of_it(
    api: httpx.AsyncClient, worker: Worker, home: Path, workflow_root: Path
) -> None:
    job_id = await an_ended_job(api, worker, home, workflow_root, StateType.FAILED)
    crate = await crate_of(api, job_id)
    told = entities(crate)
    call, plot = (told[f"#task/{RULE_JOBS[number].task_id(job_id)}"] for number in (0, 1))

    assert set(crate.namelist()) == {METADATA, SPEC, "workflow/Snakefile"}
    assert crate.read("workflow/Snakefile").decode() == SNAKEFILE
    assert json.loads(crate.read(SPEC))["config"] == CONFIG
    (output,) = (entity for entity in told.values() if entity.get("name") == OUTPUT)
    content = (home / "jobs" / str(job_id) / "work" / OUTPUT).read_bytes()
    assert (output["contentSize"], output["sha256"]) == (str(len(content)), sha256(content).hexdigest())
    assert (await api.get(output["@id"])).content == content
    assert told["#run"]["result"] == call["result"] == plot["object"] == {"@id": output["@id"]}
    assert told["#run"]["actionStatus"] == plot["actionStatus"] == "http://schema.org/FailedActionStatus"
    assert plot["error"] == "exit code 1"
    usage = {told[entity["@id"]]["name"]: told[entity["@id"]]["value"] for entity in call["resourceUsage"]}
    assert usage == {"cpu-time": "12.5", "peak-memory": str(1 << 28)}
    assert "#rule/fetch" not in told  # skipped: it did not run


async def test_the_library_reads_it(
    api: httpx.AsyncClient, worker: Worker, home: Path, workflow_root: Path, tmp_path: Path
) -> None:
    (await crate_of(api, await an_ended_job(api, worker, home, workflow_root))).extractall(tmp_path)

    crate = ROCrate(str(tmp_path))

    assert crate.mainEntity.id == "workflow/Snakefile"
    assert crate.mainEntity["programmingLanguage"]["name"] == "Snakemake"
    assert crate.root_dataset["name"] == "trio <1> & 'co'"


async def test_a_job_of_many_rule_jobs_is_told_as_a_whole(
    api: httpx.AsyncClient, worker: Worker, home: Path, workflow_root: Path, tmp_path: Path, http_cache: str
) -> None:
    many = [RuleJobInState(number) for number in range(MOST_RULE_JOBS + 1)]
    crate = await crate_of(api, await an_ended_job(api, worker, home, workflow_root, rule_jobs=many))
    crate.extractall(tmp_path)

    told = entities(crate)
    assert "#engine-run" not in told
    assert "too many to describe individually" in told["./"]["description"]
    assert all("provenance" not in profile["@id"] for profile in told["./"]["conformsTo"])
    assert issues(tmp_path, http_cache, "workflow-run-crate-0.5") == []


async def test_a_job_that_goes_on_has_none_yet(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.RUNNING)

    problem = the_problem(await api.get(f"/jobs/{job_id}/ro-crate"), 409)

    assert problem["type"].endswith(":job-not-finished")


async def test_a_job_that_has_published_nothing_has_none(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.CRASHED)

    problem = the_problem(await api.get(f"/jobs/{job_id}/ro-crate"), 404)

    assert "no crate" in problem["detail"]
