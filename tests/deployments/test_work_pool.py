"""The work pool whose jobs are ECS tasks says what the settings say."""

import re

import pytest

from deployments.ecs import WorkPoolSettings, base_job_template


def test_it_is_filled_in_from_its_settings() -> None:
    settings = WorkPoolSettings(
        cluster="jobs",
        task_definition="snakemake-job",
        subnets=("subnet-1", "subnet-2"),
        security_groups=("sg-1",),
    )

    template = base_job_template(settings)

    configuration = template["job_configuration"]
    request = configuration["task_run_request"]
    assert configuration["task_definition"] == {}
    assert request["taskDefinition"] == "snakemake-job"
    assert request["networkConfiguration"]["awsvpcConfiguration"] == {
        "subnets": ["subnet-1", "subnet-2"],
        "securityGroups": ["sg-1"],
        "assignPublicIp": "DISABLED",
    }
    placeholders = set(re.findall(r"\{\{ (\w+) \}\}", str(configuration)))
    assert placeholders == template["variables"]["properties"].keys()


@pytest.mark.parametrize(
    "variables",
    [
        {"JOBS_ECS_SUBNETS": ""},
        {"JOBS_ECS_CLUSTER": ""},
        {"JOBS_ECS_TASK_DEFINITION": "family:3"},
    ],
)
def test_wrong_settings_are_refused(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    right = {
        "JOBS_ECS_CLUSTER": "jobs",
        "JOBS_ECS_TASK_DEFINITION": "snakemake-job",
        "JOBS_ECS_SUBNETS": "subnet-1, subnet-2",
        "JOBS_ECS_SECURITY_GROUPS": "sg-1",
    }
    for name, value in right.items():
        monkeypatch.setenv(name, value)
    assert WorkPoolSettings().subnets == ("subnet-1", "subnet-2")  # type: ignore[call-arg]  # from there
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ValueError, match=next(iter(variables)).removeprefix("JOBS_ECS_").lower()):
        WorkPoolSettings()  # type: ignore[call-arg]  # from the environment
