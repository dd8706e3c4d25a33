"""What clients send and read about the triggers of registered workflows."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from flows.contract.field_types import PublishedPath, RelativePath, Strict
from flows.contract.registered import WorkflowName

JOB_ID = "{{ job.id }}"
"""As a value in `parameters`, the id of the job that has completed."""

_EXAMPLE: dict[str, JsonValue] = {
    "completed": "alignment",
    "outputs": {"resources/aligned": "results/aligned"},
    "parameters": {"config": {"aligned_by": JOB_ID}},
}


class NewTrigger(Strict):
    """What makes a job of a registered workflow: a job of another one that has completed."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    completed: WorkflowName = Field(
        description="A registered workflow of the same group: each of its jobs that completes makes a job."
    )
    outputs: dict[RelativePath, PublishedPath] = Field(
        default_factory=dict,
        max_length=1000,
        description="What that job has made, by the place where the new job finds it, as in `inputs`.",
    )
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="What the new job sets, as in `POST /jobs`. The value `{{ job.id }}` becomes the id of "
        "the job that has completed.",
    )


class Trigger(BaseModel):
    """A trigger of a registered workflow. It is an automation in Prefect."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"slug": "after-alignment", "active": True, **_EXAMPLE}]}
    )

    slug: str = Field(description="Its name in the workflow.")
    active: bool = Field(description="Whether it makes jobs. It can be paused in Prefect.")
    completed: str = Field(description="The workflow whose jobs make jobs of this one.")
    outputs: dict[str, str] = Field(description="What those have made, by the place in the new job.")
    parameters: dict[str, Any] = Field(description="What the new job sets.")


class TriggerList(BaseModel):
    """The triggers of a registered workflow."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"slug": "after-alignment", "active": True, **_EXAMPLE}]}]}
    )

    items: list[Trigger]
