"""What is wrong with a request is told as a problem that helps, and makes nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from api.settings import Settings
from tests.api.support import facade, the_problem

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module", autouse=True)
async def nothing_is_made(prefect: PrefectClient) -> AsyncIterator[None]:
    before = await prefect.count_flow_runs()
    yield
    assert await prefect.count_flow_runs() == before


async def refused(api: httpx.AsyncClient, spec: Any, status: int = 422) -> dict[str, Any]:
    return the_problem(await api.post("/jobs", json=spec), status)


async def refused_body(api: httpx.AsyncClient, body: bytes, status: int = 422) -> dict[str, Any]:
    return the_problem(await api.post("/jobs", content=body, headers=JSON), status)


@pytest.mark.parametrize(
    ("spec", "pointer", "meant"),
    [
        ({"engine": "mock", "nmae": "x"}, "#/nmae", "name"),
        ({"engine": "mock", "options": {"keep_goin": True}}, "#/options/keep_goin", "keep_going"),
        ({"engine": "mock", "mock": {"success": 1}}, "#/mock/success", "success_rate"),
        ({"workflow": {"pth": "/srv/x"}}, "#/workflow/pth", "path"),
    ],
)
async def test_a_misspelt_field_is_told_with_the_name_that_was_meant(
    api: httpx.AsyncClient, spec: Any, pointer: str, meant: str
) -> None:
    problem = await refused(api, spec)

    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert f"did you mean '{meant}'?" in problem["resolution"]


async def test_a_field_that_resembles_none_is_answered_with_all_there_are(api: httpx.AsyncClient) -> None:
    problem = await refused(api, {"engine": "mock", "mock": {"zzz": 1}})

    assert "delay_seconds, success_rate, rules, seed" in problem["resolution"]


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ([], "#"),
        ("x", "#"),
        ({}, "#"),
        ({"engine": "snakemake"}, "#"),
        ({"engine": "nextflow"}, "#/engine"),
        ({"engine": "mock", "cores": 0}, "#/cores"),
        ({"engine": "mock", "cores": 10**30}, "#/cores"),
        ({"engine": "mock", "cores": "two"}, "#/cores"),
        ({"engine": "mock", "timeout_seconds": -1}, "#/timeout_seconds"),
        ({"engine": "mock", "targets": ["--forceall"]}, "#/targets/0"),
        ({"engine": "mock", "snakefile": "../Snakefile"}, "#/snakefile"),
        ({"engine": "mock", "snakefile": "/etc/passwd"}, "#/snakefile"),
        ({"engine": "mock", "tags": {"a b": "x"}}, "#/tags/a b"),
        ({"engine": "mock", "tags": {"a": 1}}, "#/tags/a"),
        ({"engine": "mock", "name": ""}, "#/name"),
        ({"engine": "mock", "name": "x" * 201}, "#/name"),
        ({"engine": "mock", "name": "a\n2026-01-01 INFO forged"}, "#/name"),
        ({"engine": "mock", "name": "\x1b]0;title\x07"}, "#/name"),
        ({"engine": "mock", "name": "\u202egpj.exe"}, "#/name"),
        ({"engine": "mock", "tags": {"a\x1b[2J": "x"}}, "#/tags/a\x1b[2J"),
        ({"engine": "mock", "tags": {"a": "x\r"}}, "#/tags/a"),
        ({"engine": "mock", "targets": ["a\u2028b"]}, "#/targets/0"),
        ({"workflow": {"path": "/srv/\x9b2J"}}, "#/workflow/path"),
        ({"engine": "mock", "group": "a/b"}, "#/group"),
        ({"engine": "mock", "mock": {"delay_seconds": [3, 1]}}, "#/mock"),
        ({"engine": "mock", "resources": {"mem mb": 1}}, "#/resources/mem mb"),
        ({"workflow": {"path": 7}}, "#/workflow/path"),
        ({"workflow": "/srv/x"}, "#/workflow"),
    ],
)
async def test_a_wrong_value_is_told_with_its_place(api: httpx.AsyncClient, spec: Any, pointer: str) -> None:
    problem = await refused(api, spec)

    assert pointer in [error["pointer"] for error in problem["errors"]]


@pytest.mark.parametrize(
    "config",
    [{"__prefect_kind": "jinja"}, {"a": [{"b": {"__prefect_kind": "workspace_variable"}}]}],
)
async def test_the_key_that_prefect_would_interpret_is_refused_at_any_depth(
    api: httpx.AsyncClient, config: Any
) -> None:
    problem = await refused(api, {"engine": "mock", "config": config})

    assert "__prefect_kind" in problem["detail"]


async def test_an_unknown_group_is_told_with_those_there_are(api: httpx.AsyncClient) -> None:
    problem = await refused(api, {"engine": "mock", "group": "defualt"})

    assert problem["errors"] == [{"pointer": "#/group", "message": "There is no group 'defualt'."}]
    assert "Did you mean 'default'?" in problem["resolution"]
    assert "large" in problem["resolution"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"engine: mock",
        b'{"engine": "mock",}',
        b"\xff\xfe",
        b'{"engine": "mock", "name": "\\ud800"}',
        b'{"engine": "mock", "timeout_seconds": NaN}',
        b'{"engine": "mock", "timeout_seconds": Infinity}',
        b'{"engine": "mock", "config": {"a": ' + b"9" * 5000 + b"}}",
        b'{"engine": "mock", "config": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b"[" * 500_000,
    ],
)
async def test_a_body_that_is_no_sound_json_is_refused(api: httpx.AsyncClient, body: bytes) -> None:
    assert (await refused_body(api, body))["errors"][0]["pointer"] == "#"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (rb'{"engine": "mock", "name": "a\u0000b"}', "#/name"),
        (rb'{"engine": "mock", "config": {"a": ["x", "\u0000"]}}', "#/config/a/1"),
        (rb'{"engine": "mock", "config": {"\u0000": 1}}', "#/config/\0"),
        (rb'{"engine": "mock", "tags": {"a": "\u0000"}}', "#/tags/a"),
        (rb'{"engine": "mock", "timeout_seconds": 1e999}', "#/timeout_seconds"),
        (rb'{"engine": "mock", "config": {"a": [1e44]}}', "#/config/a/0"),
        (rb'{"engine": "mock", "config": {"a": 9223372036854775808}}', "#/config/a"),
        (rb'{"engine": "mock", "config": {"a/b": {"~": 1e999}}}', "#/config/a~1b/~0"),
    ],
)
async def test_what_prefect_cannot_store_is_refused_with_its_place(
    api: httpx.AsyncClient, body: bytes, pointer: str
) -> None:
    assert (await refused_body(api, body))["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/yaml"]
)
async def test_a_body_that_is_not_declared_as_json_is_refused(
    api: httpx.AsyncClient, media_type: str
) -> None:
    response = await api.post("/jobs", content=b'{"engine": "mock"}', headers={"content-type": media_type})

    assert media_type in the_problem(response, 415)["detail"]


async def test_a_body_over_the_limit_is_refused(api: httpx.AsyncClient) -> None:
    await refused(api, {"engine": "mock", "config": {"a": "x" * (1 << 20)}}, 413)


async def test_a_body_over_the_limit_is_refused_even_if_its_length_is_not_told(service_url: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * (1 << 16)

    async with httpx.AsyncClient(base_url=service_url) as client:
        the_problem(await client.post("/jobs", content=endless(), headers=JSON), 413)


async def test_parameters_that_prefect_would_not_keep_are_refused(api: httpx.AsyncClient) -> None:
    problem = await refused(api, {"engine": "mock", "config": {"a": "x" * 600_000}}, 413)

    assert "524,288" in problem["detail"]


async def test_parameters_that_prefect_refuses_are_told_in_its_words(
    api: httpx.AsyncClient, prefect: PrefectClient
) -> None:
    flow_id = (await prefect.read_flow_by_name("snakemake-job")).id
    schema = {"type": "object", "properties": {"engine": {"type": "integer"}}}
    deployment_id = await prefect.create_deployment(
        flow_id, "strict", parameter_openapi_schema=schema, enforce_parameter_schema=True
    )
    try:
        problem = await refused(api, {"engine": "mock", "group": "strict"})
    finally:
        await prefect.delete_deployment(deployment_id)

    assert "Validation failed for field 'engine'" in problem["detail"]


class TestAWorkflow:
    """has to lie under a root, and to have its Snakefile, before a job is made of it."""

    @pytest.mark.parametrize(
        "path", ["/etc", "/", "{root}/../..", "{root}/out", "/nowhere", "/" + "x" * 4000]
    )
    async def test_outside_of_every_root_is_refused(
        self, api: httpx.AsyncClient, workflow_root: Path, path: str
    ) -> None:
        if not (workflow_root / "out").is_symlink():
            (workflow_root / "out").symlink_to("/etc")

        problem = await refused(api, {"workflow": {"path": path.format(root=workflow_root)}})

        assert str(workflow_root) in problem["resolution"]
        assert problem["errors"][0]["pointer"] == "#/workflow/path"

    @pytest.mark.parametrize("path", ["", "/jobs/{job}/work", "/../out-and-in"])
    async def test_of_another_job_is_refused(self, prefect_api_url: str, tmp_path: Path, path: str) -> None:
        """As where the home lies below a root, which is how the local stack starts."""
        home = tmp_path / ".jobs"
        other = home / "jobs" / str(uuid4()) / "work"
        other.mkdir(parents=True)
        for directory in (home, other):
            (directory / "Snakefile").touch()
        (tmp_path / "out-and-in").symlink_to(other)
        spec = {"workflow": {"path": f"{home}{path.format(job=other.parent.name)}"}}
        async with facade(prefect_api_url, Settings(home=home, workflow_roots=(tmp_path,))) as api:
            problem = await refused(api, spec)

        assert "is inside the directory where the service keeps its jobs" in problem["detail"]
        assert problem["errors"][0]["pointer"] == "#/workflow/path"

    async def test_of_a_relative_path_is_refused(self, api: httpx.AsyncClient) -> None:
        assert "absolute" in (await refused(api, {"workflow": {"path": "variants"}}))["detail"]

    async def test_that_is_not_there_is_refused(self, api: httpx.AsyncClient, workflow_root: Path) -> None:
        problem = await refused(api, {"workflow": {"path": f"{workflow_root}/missing"}})

        assert "is not a directory" in problem["detail"]

    async def test_in_a_loop_of_links_is_refused(self, api: httpx.AsyncClient, workflow_root: Path) -> None:
        loop = workflow_root / "loop"
        loop.symlink_to(loop)

        await refused(api, {"workflow": {"path": str(loop)}})

    async def test_without_a_snakefile_is_refused(self, api: httpx.AsyncClient, workflow_root: Path) -> None:
        (workflow_root / "empty").mkdir()

        problem = await refused(api, {"workflow": {"path": f"{workflow_root}/empty"}})
        assert "workflow/Snakefile" in problem["detail"]
        assert "snakefile" in problem["resolution"]

        problem = await refused(api, {"workflow": {"path": f"{workflow_root}/empty"}, "snakefile": "my.smk"})
        assert problem["errors"][0]["pointer"] == "#/snakefile"

    async def test_is_refused_when_no_root_is_set(self, prefect_api_url: str, home: Path) -> None:
        async with facade(prefect_api_url, Settings(home=home, workflow_roots=())) as api:
            problem = await refused(api, {"workflow": {"path": "/srv/workflows/variants"}})

        assert "no root is set" in problem["resolution"]


@pytest.mark.parametrize(
    "path",
    ["/jobs/{id}", "/jobs/{id}/tasks", "/jobs/{id}/logs", "/jobs/{id}/outputs", "/jobs/{id}/outputs/a"],
)
@pytest.mark.parametrize("job_id", [str(UUID(int=7)), "nonsense", "%00", "1"])
async def test_a_job_that_is_not_there_is_not_found(api: httpx.AsyncClient, path: str, job_id: str) -> None:
    the_problem(await api.get(path.format(id=job_id)), 404)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/job", 404), ("PUT", "/jobs", 405), ("PATCH", f"/jobs/{UUID(int=7)}", 405)],
)
async def test_a_path_or_method_that_is_not_there_is_a_problem_too(
    api: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await api.request(method, path)

    assert the_problem(response, status)["instance"] == path
    assert status != 405 or response.headers["allow"]


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"status": "done"}, "?status.0"),
        ({"status": "running,"}, "?status.1"),
        ({"limit": "0"}, "?limit"),
        ({"limit": "201"}, "?limit"),
        ({"limit": "9" * 30}, "?limit"),
        ({"limit": "ten"}, "?limit"),
        ({"name": "a\0b"}, "?name"),
        ({"name": ""}, "?name"),
        ({"tag": "a:\0"}, "?tag.0"),
        ({"group": "\0"}, "?group"),
        ({"group": "nowhere"}, "?group"),
        ({"statsu": "running"}, "?statsu"),
    ],
)
async def test_a_filter_that_means_nothing_is_refused(
    api: httpx.AsyncClient, parameters: dict[str, str], pointer: str
) -> None:
    problem = the_problem(await api.get("/jobs", params=parameters), 422)

    assert [error["pointer"] for error in problem["errors"]] == [pointer]


async def test_a_misspelt_filter_is_told_with_the_name_that_was_meant(api: httpx.AsyncClient) -> None:
    problem = the_problem(await api.get("/jobs", params={"statsu": "running"}), 422)

    assert "did you mean 'status'?" in problem["resolution"]
