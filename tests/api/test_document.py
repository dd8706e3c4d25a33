"""The OpenAPI document says all that a client has to know."""

from typing import Any

import httpx
import pytest

from tests.api.support import PROBLEM, get

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


async def test_the_document_can_be_read_in_a_browser(api: httpx.AsyncClient) -> None:
    assert "swagger" in (await api.get("/docs")).text
