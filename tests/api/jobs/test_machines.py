"""Jobs on Fargate get a machine of a size that there is, or are told the nearest one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.orchestration import PrefectClient

from api.jobs.machines import job_variables
from api.settings import Machines, Settings
from api.web.problems import MachineRefused
from flows.contract.spec import EngineName, JobSpec
from tests.api.support import facade, resolution_of, submit, the_problem

GIB = 1024


def variables(**spec: Any) -> dict[str, Any]:
    return dict(job_variables(JobSpec(engine=EngineName.MOCK, **spec), Machines.FARGATE))


@pytest.mark.parametrize(
    ("spec", "cpu", "memory_gib", "disk_gib"),
    [
        ({}, 1024, 2, None),
        ({"cores": 2}, 2048, 4, None),
        ({"cores": 4}, 4096, 8, None),
        ({"cores": 8}, 8192, 16, None),
        ({"cores": 16}, 16384, 32, None),
        ({"resources": {"mem_mb": 1}}, 1024, 2, None),
        ({"resources": {"mem_mb": 2 * GIB + 1}}, 1024, 3, None),
        ({"cores": 8, "resources": {"mem_mb": 16 * GIB + 1}}, 8192, 20, None),
        ({"cores": 16, "resources": {"mem_mb": 120 * GIB}}, 16384, 120, None),
        ({"resources": {"disk_mb": 20 * GIB}}, 1024, 2, None),
        ({"resources": {"disk_mb": 20 * GIB + 1}}, 1024, 2, 21),
        ({"resources": {"disk_mb": 200 * GIB}}, 1024, 2, 200),
    ],
)
def test_a_job_gets_the_smallest_machine_that_is_enough(
    spec: dict[str, Any], cpu: int, memory_gib: int, disk_gib: int | None
) -> None:
    found = variables(**spec)

    assert (found["cpu"], found["memory"]) == (cpu, memory_gib * GIB)
    assert found.get("ephemeral_storage") == (disk_gib and {"sizeInGiB": disk_gib})


def test_spot_is_asked_for() -> None:
    assert variables()["launch_type"] == "FARGATE"
    assert variables(spot=True)["launch_type"] == "FARGATE_SPOT"


@given(st.integers(1, 1024), st.integers(0, 200 * GIB), st.integers(0, 300 * GIB))
def test_what_fargate_gets_is_a_size_that_it_has(cores: int, mem_mb: int, disk_mb: int) -> None:
    sizes = {1: (2, 8, 1), 2: (4, 16, 1), 4: (8, 30, 1), 8: (16, 60, 4), 16: (32, 120, 8)}
    least, most, step = sizes.get(cores, (0, 0, 1))
    resources = {"mem_mb": mem_mb, "disk_mb": disk_mb}
    if mem_mb > most * GIB or disk_mb > 200 * GIB or not least:
        with pytest.raises(MachineRefused):
            variables(cores=cores, resources=resources)
        return
    found = variables(cores=cores, resources=resources)
    assert found["cpu"] == cores * 1024
    assert found["memory"] // GIB in range(least, most + 1, step)
    assert found["memory"] >= mem_mb
    assert 21 <= found.get("ephemeral_storage", {"sizeInGiB": 21})["sizeInGiB"] <= 200


@pytest.fixture
async def on_fargate(prefect_api_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with facade(prefect_api_url, Settings(home=tmp_path, machines=Machines.FARGATE)) as client:
        yield client


@pytest.mark.anyio
async def test_the_size_travels_with_the_flow_run(
    on_fargate: httpx.AsyncClient, prefect: PrefectClient
) -> None:
    job_id = await submit(on_fargate, cores=2, spot=True)

    flow_run = await prefect.read_flow_run(job_id)
    assert flow_run.job_variables == {"cpu": 2048, "memory": 4096, "launch_type": "FARGATE_SPOT"}
    assert "spot" not in flow_run.parameters


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("spec", "pointer", "nearest"),
    [
        ({"cores": 3}, "#/cores", "Set `cores` to 2 or 4."),
        ({"cores": 12}, "#/cores", "Set `cores` to 8 or 16."),
        ({"cores": 17}, "#/cores", "Set `cores` to 16."),
        ({"resources": {"mem_mb": 9000}}, "#/resources/mem_mb", "8192 or less, or `cores` to 2"),
        ({"cores": 16, "resources": {"mem_mb": 200_000}}, "#/resources/mem_mb", "122880 or less"),
        ({"resources": {"disk_mb": 300_000}}, "#/resources/disk_mb", "204800 or less"),
    ],
)
async def test_a_size_that_does_not_exist_is_refused_with_the_nearest_one(
    on_fargate: httpx.AsyncClient, spec: dict[str, Any], pointer: str, nearest: str
) -> None:
    problem = the_problem(await on_fargate.post("/jobs", json={"engine": "mock", **spec}), 422)

    assert problem["type"].endswith(":machine-refused")
    assert problem["errors"][0]["pointer"] == pointer
    assert nearest in problem["resolution"]


@pytest.mark.anyio
async def test_wes_asks_for_machines_too(on_fargate: httpx.AsyncClient, prefect: PrefectClient) -> None:
    def form(parameters: str) -> dict[str, str]:
        return {
            "workflow_type": "SMK",
            "workflow_type_version": "1.0",
            "workflow_url": "Snakefile",
            "workflow_engine_parameters": parameters,
        }

    attached = {"workflow_attachment": ("Snakefile", b"rule all:\n")}
    right, wrong = form('{"cores": "4", "spot": "true"}'), form('{"cores": "3"}')
    made = await on_fargate.post("/ga4gh/wes/v1/runs", data=right, files=attached)
    refused = await on_fargate.post("/ga4gh/wes/v1/runs", data=wrong, files=attached)

    assert made.status_code == 200, made.text
    flow_run = await prefect.read_flow_run(made.json()["run_id"])
    assert flow_run.job_variables == {"cpu": 4096, "memory": 8192, "launch_type": "FARGATE_SPOT"}
    assert refused.status_code == 400
    assert "Set `cores` to 2 or 4." in refused.json()["msg"]


@pytest.mark.anyio
async def test_spot_is_refused_where_there_is_none(api: httpx.AsyncClient) -> None:
    problem = the_problem(await api.post("/jobs", json={"engine": "mock", "spot": True}), 422)

    assert resolution_of(problem) == "Leave out `spot`."
