"""What a client may ask for: everything that is not in the contract is refused, and said why."""

import inspect
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.contract.sources import WorkflowSource
from flows.contract.spec import RESERVED_KEY, EngineName, ExecutionSpec, JobSpec
from flows.job import snakemake_job

WORKFLOW = {"path": "/srv/workflows/variants"}

KEYS = st.text(max_size=5).filter(lambda key: key != RESERVED_KEY)
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
CONFIGS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_size=4,
)


def job(**fields: Any) -> JobSpec:
    """A job as it arrives: a JSON body."""
    return JobSpec.model_validate_json(json.dumps({"workflow": WORKFLOW} | fields))


def refusal(**fields: Any) -> str:
    """Where and why such a job is refused."""
    with pytest.raises(ValidationError) as refused:
        job(**fields)
    (error,) = refused.value.errors()
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"


@pytest.mark.parametrize(
    "fields",
    [
        {"worklfow": WORKFLOW},
        {"workflow": WORKFLOW | {"url": "https://example.org"}},
        {"options": {"unlock": True}},
        {"mock": {"speed": 2}},
        {"command": "snakemake --unlock"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_an_unknown_field_is_refused_wherever_it_stands(fields: dict[str, Any]) -> None:
    assert "Extra inputs are not permitted" in refusal(**fields)


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({RESERVED_KEY: "jinja"}, "$.config.__prefect_kind"),
        ({"a": {"b": {RESERVED_KEY: "json"}}}, "$.config.a.b.__prefect_kind"),
        ({"a": [1, [{"b": 2}, {RESERVED_KEY: None}]]}, "$.config.a[1][1].__prefect_kind"),
    ],
)
def test_the_key_that_prefect_hydrates_is_refused_and_its_place_named(
    config: dict[str, Any], place: str
) -> None:
    assert f"found at {place}" in refusal(config=config)


@given(config=CONFIGS, wrappings=st.lists(st.sampled_from(["list", "dict"]), max_size=8))
def test_the_key_that_prefect_hydrates_is_refused_at_any_depth(
    config: dict[str, Any], wrappings: list[str]
) -> None:
    hidden: Any = {RESERVED_KEY: "prefect_variable"}
    for wrapping in wrappings:
        hidden = [hidden] if wrapping == "list" else {"key": hidden}
    assert "is reserved by Prefect" in refusal(config=config | {"hidden": hidden})


@given(config=CONFIGS)
def test_any_other_config_reaches_the_flow_as_it_was_sent(config: dict[str, Any]) -> None:
    assert job(config=config).parameters()["config"] == config


@pytest.mark.parametrize("snakefile", ["/etc/passwd", "../Snakefile", "a/../../Snakefile", "", ".", ".."])
def test_a_snakefile_outside_of_the_workflow_is_refused(snakefile: str) -> None:
    assert refusal(snakefile=snakefile).startswith("snakefile: Value error, must be a relative path")


@pytest.mark.parametrize("target", ["--unlock", "-n", "-", "--"])
def test_a_target_that_looks_like_an_option_is_refused(target: str) -> None:
    assert refusal(targets=["all", target]).startswith("targets.1: Value error, a target is a rule or a file")


@pytest.mark.parametrize("delays", [[3, 2], [-1, 2], [0, 100_000]])
def test_mock_delays_in_the_wrong_order_or_out_of_bounds_are_refused(delays: list[float]) -> None:
    assert "[shortest, longest]" in refusal(engine="mock", mock={"delay_seconds": delays})


@pytest.mark.parametrize(
    "fields",
    [
        {"cores": 0},
        {"timeout_seconds": 0},
        {"timeout_seconds": 1e300},  # `threading.Timer` takes no more than 292 years
        {"options": {"retries": -1}},
        {"mock": {"success_rate": 1.01}},
        {"mock": {"rules": 0}},
        {"resources": {"mem_mb": -1}},
        {"resources": {"mem mb": 1}},
        {"group": "../other"},
        {"tags": {"a:b": "c"}},
        {"name": ""},
    ],
    ids=json.dumps,
)
def test_a_value_out_of_bounds_is_refused(fields: dict[str, Any]) -> None:
    assert refusal(**fields).startswith(next(iter(fields)))


def test_snakemake_needs_a_workflow() -> None:
    assert "the snakemake engine needs a workflow" in refusal(workflow=None)


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ({}, "given: none of them"),
        ({"path": "/srv/x", "git": "https://example.org/x"}, "given: path, git"),
        ({"path": "/srv/x", "ref": "main"}, "ref is only allowed with git"),
        ({"path": "/srv/x", "subdir": "x"}, "append it to path"),
        ({"git": "https://example.org/x", "subdir": "../x"}, "must be a relative path"),
        ({"git": "https://example.org/x", "ref": "--upload-pack=x"}, "should match pattern"),
        ({"bundle": "sha256:0"}, "should match pattern"),
    ],
)
def test_a_workflow_comes_from_exactly_one_place(workflow: dict[str, Any], message: str) -> None:
    assert message in refusal(workflow=workflow)


def test_the_mock_engine_needs_nothing() -> None:
    assert JobSpec.model_validate({"engine": "mock"}).engine is EngineName.MOCK


def test_the_flow_gets_as_parameters_only_what_was_set() -> None:
    assert job().parameters() == {"workflow": WORKFLOW}
    assert job(cores=1, config={}).parameters() == {"workflow": WORKFLOW, "cores": 1, "config": {}}


def test_how_a_job_is_called_and_found_is_no_parameter_of_the_flow() -> None:
    named = job(name="trio-1", group="large", tags={"project": "x", "batch": "7"})
    assert named.parameters() == {"workflow": WORKFLOW}
    assert named.prefect_tags() == ["batch:7", "project:x"]


def test_the_parameters_are_json_that_makes_the_same_spec_again() -> None:
    asked = job(
        targets=["all"],
        resources={"mem_mb": 4000},
        options={"retries": 2},
        mock={"delay_seconds": [1, 2]},
        timeout_seconds=1.5,
    )
    parameters = json.loads(json.dumps(asked.parameters()))
    assert ExecutionSpec.model_validate(parameters) == ExecutionSpec(
        workflow=WorkflowSource(**WORKFLOW),
        targets=asked.targets,
        resources=asked.resources,
        options=asked.options,
        mock=asked.mock,
        timeout_seconds=1.5,
    )


def test_the_parameters_of_the_flow_are_the_fields_of_the_spec_with_the_same_defaults() -> None:
    parameters = inspect.signature(snakemake_job.fn).parameters
    defaults = {
        name: field.get_default(call_default_factory=True)
        for name, field in ExecutionSpec.model_fields.items()
    }
    assert {name: parameter.default for name, parameter in parameters.items()} == defaults
