"""The form of a registered workflow, from schemas as people write them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import is_valid_schema, validate

from api.workflows.checks import mistakes_in
from api.workflows.forms import form_of
from flows.contract.registered import RegisteredVersion, TableDescription, WorkflowDescription
from flows.contract.spec import JobSpec

ROW = {"type": "object", "properties": {"sample": {"type": "string"}, "lane": {"type": "integer"}}}


def version_of(schema: dict[str, Any], own: dict[str, Any], **job: Any) -> RegisteredVersion:
    """Of a workflow with this schema and configuration."""
    return RegisteredVersion(
        name="w",
        version="1",
        group="default",
        registered_at=datetime.now(UTC),
        sha256="",
        registered_by="me",
        job=job,
        description=WorkflowDescription(config_schema=schema, config=own),
    )


def mistakes_of(form: dict[str, Any], **parameters: Any) -> list[str]:
    return [error.message for error in validate(parameters, form)]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {"required": ["a"], "a": {"type": "string"}}},
        {"$ref": "#/definitions/all", "definitions": {"all": {"type": "object"}}},
        {"properties": {"a": {"$ref": "other.schema.yaml#/x"}, "b": {"$ref": "#/nowhere"}}},
        {
            "properties": {"a": {"$ref": "#/$defs/node"}},
            "$defs": {"node": {"items": {"$ref": "#/$defs/node"}}},
        },
        {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": True},
    ],
)
def test_prefect_can_read_a_form_of_any_schema(schema: dict[str, Any]) -> None:
    form = form_of(version_of(schema, {"a": "x"}))
    is_valid_schema(form)
    assert mistakes_of(form, config={}) == []


def test_what_the_workflow_or_the_version_sets_is_filled_in_and_need_not_be_given() -> None:
    schema = {
        "properties": {
            "depth": {"type": "integer"},
            "color": {"type": "string"},
            "caller": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        },
        "required": ["depth", "color", "caller"],
    }
    form = form_of(version_of(schema, {"depth": 1, "caller": {"name": "x"}}, config={"depth": 7}, cores=4))
    config = form["properties"]["config"]
    assert config["required"] == ["color"]
    assert config["properties"]["depth"]["default"] == 7
    assert config["properties"]["caller"]["properties"]["name"]["default"] == "x"
    assert form["properties"]["cores"]["default"] == 4
    assert mistakes_of(form, config={}) == ["'color' is a required property"]


def test_a_schema_that_is_wrong_stops_no_job() -> None:
    described = WorkflowDescription(config_schema={"type": "no such type"}, config={"a": 1})
    assert mistakes_in(JobSpec(workflow={"path": "/w"}), described) == []  # type: ignore[arg-type]  # as JSON


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        ("sample\tlane\nA\t1\n", []),
        ("# a comment\nsample\tlane\n\nA\tNA\n", []),
        ("sample\tlane\n1\t1\n", ["#/files/s.tsv/1/sample"]),
        ("sample\tlane\nA\t1\nB\tfirst\n", ["#/files/s.tsv/2/lane"]),
    ],
)
def test_a_table_is_checked_row_by_row(text: str, pointers: list[str]) -> None:
    table = TableDescription(path="s.tsv", schema_file="s.schema.yaml", row_schema=ROW)
    spec = JobSpec.model_validate({"workflow": {"path": "/w"}, "files": {"s.tsv": text}})
    assert [each.pointer for each in mistakes_in(spec, WorkflowDescription(tables=(table,)))] == pointers
