"""The OpenAPI document says all that a client has to know."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import httpx
import pytest
import yaml

from api.web.problems import WES_PREFIX
from api.web.reference import reference_page
from tests.api.support import PROBLEM, WES_DOCUMENT, get
from tests.exchanges.__main__ import GUIDE
from tests.exchanges.sections import SECTIONS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def document(api: httpx.AsyncClient) -> Any:
    return await get(api, "/openapi.json")


def operations(document: Any) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }


async def test_every_operation_has_a_name_a_summary_and_a_room(document: Any) -> None:
    assert set(operations(document)) == {
        "getBundleLimits",
        "putBundle",
        "submitJob",
        "listJobs",
        "getJob",
        "followJob",
        "followJobs",
        "cancelJob",
        "resumeJob",
        "deleteJob",
        "listTasks",
        "getTask",
        "listTaskLogs",
        "listLogs",
        "listOutputs",
        "downloadOutput",
        "registerWorkflow",
        "listWorkflows",
        "getWorkflow",
        "getWorkflowVersion",
        "retireWorkflowVersion",
        "listTriggers",
        "putTrigger",
        "deleteTrigger",
        "listSchedules",
        "putSchedule",
        "deleteSchedule",
        "getUsage",
        "getWorkflowUsage",
        "compareJobs",
        "drawJob",
        "drawUsage",
        "packJob",
        "isAlive",
        "isReady",
        "readMetrics",
    }
    for operation in operations(document).values():
        assert operation["summary"]
        assert operation["tags"]


async def test_problems_are_declared_as_what_they_are(document: Any) -> None:
    for name, operation in operations(document).items():
        if name == "isReady":
            continue  # answers with the same body, ready or not
        problems = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert name == "isAlive" or {"422", "503"} <= set(problems)
        for answer in problems.values():
            assert list(answer["content"]) == [PROBLEM]
            assert answer["content"][PROBLEM]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_every_answer_has_an_example(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name in ("Job", "RuleJob", "LogLine", "Output", "Problem"):
        assert schemas[name]["examples"]
    assert set(
        operations(document)["submitJob"]["requestBody"]["content"]["application/json"]["examples"]
    ) == {
        "snakemake",
        "git",
        "bundle",
        "mock",
    }


async def test_the_examples_of_a_submission_are_ones(document: Any, api: httpx.AsyncClient) -> None:
    body = operations(document)["submitJob"]["requestBody"]["content"]["application/json"]

    response = await api.post("/jobs", json=body["examples"]["mock"]["value"])

    assert response.status_code == 201


async def test_the_document_can_be_read_in_a_browser(api: httpx.AsyncClient, document: Any) -> None:
    page = (await api.get("/docs")).text

    for path, methods in document["paths"].items():
        assert all(f"<h3>{method.upper()} {path}</h3>" in page for method in methods)
    for name, schema in document["components"]["schemas"].items():
        assert f'<h3 id="{name}">' in page
        assert all(f"<td>{field}" in page for field in schema.get("properties", ()))


async def test_the_page_loads_nothing_and_runs_nothing(api: httpx.AsyncClient) -> None:
    answer = await api.get("/docs")

    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "<script" not in answer.text
    assert set(re.findall(r'(?:href|src)="([^"#][^"]*)"', answer.text)) == {"/openapi.json"}


def test_the_page_shows_markup_of_the_document_as_text() -> None:
    hostile = "<script>alert(1)</script>"
    answers = {"200": {"description": hostile}}
    operation = {"summary": hostile, "description": f"`{hostile}`", "responses": answers}
    document = {
        "info": {"title": hostile},
        "paths": {f"/{hostile}": {"get": operation}},
        "components": {"schemas": {"X": {"enum": [hostile], "properties": {hostile: {"type": hostile}}}}},
    }

    assert "<script" not in reference_page(document)


async def test_every_operation_has_an_example_of_its_answer(document: Any) -> None:
    def has_example(content: dict[str, Any]) -> bool:
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        schema = document["components"]["schemas"].get(name, {})
        return bool({"example", "examples"} & (content.keys() | schema.keys()))

    for name, operation in operations(document).items():
        for status, answer in operation["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                if status < "300":
                    assert has_example(content), f"{name} {status} {media_type}"


async def test_a_generated_client_works(document: Any, service_url: str, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    python = Path(sys.executable)
    generator = [str(python.with_name("openapi-python-client")), "generate", "--path", "openapi.json"]
    environment = {**os.environ, "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]])}
    generated = subprocess.run(
        generator, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert generated.returncode == 0, generated.stdout + generated.stderr
    assert "Endpoint will not be generated" not in generated.stdout

    program = """
        from prefect_snakemake_client import Client
        from prefect_snakemake_client.api.jobs import get_job, list_jobs, submit_job
        from prefect_snakemake_client.models import EngineName, JobSpec

        client = Client(base_url={url!r})
        job = submit_job.sync(client=client, body=JobSpec(engine=EngineName.MOCK, name="generated"))
        assert job.id in [found.id for found in list_jobs.sync(client=client, name="generated").items]
        print(get_job.sync(job.id, client=client).status)
    """
    used = subprocess.run(
        [sys.executable, "-c", dedent(program.format(url=service_url))],
        cwd=tmp_path / "prefect-snakemake-client",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (used.stdout, used.stderr) == ("pending\n", "")


_METHODS = {"get": "curl", "post": "curl", "put": "curl -T|-X PUT", "delete": "-X DELETE"}
_ASKED = {"{path}": ".+", "{name}": r"\w+", "{version}": r"[\w.]+", "{slug}": r"[\w-]+"}


async def test_every_operation_is_shown_with_a_real_exchange(document: Any) -> None:
    exchanges = [exchange for section in SECTIONS.values() for exchange in section]
    guide = GUIDE.read_text()
    assert [exchange.command for exchange in exchanges if f"$ {exchange.command}\n" not in guide] == []
    wes = yaml.safe_load(WES_DOCUMENT.read_text())["paths"]
    paths = document["paths"] | {f"{WES_PREFIX}{path}": methods for path, methods in wes.items()}
    for path, methods in paths.items():
        asked = re.sub(r"\{\w+}", lambda part: _ASKED.get(part[0], r"\$\w+"), path)
        for method in methods.keys() & _METHODS:
            asks = [
                one.command for one in exchanges if re.search(rf"localhost:8000{asked}(?![\w/])", one.command)
            ]
            assert any(re.search(_METHODS[method], command) for command in asks), f"{method} {path}"
