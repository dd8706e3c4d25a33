"""What clients send and read about the triggers of registered workflows."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from flows.contract.field_types import PublishedPath, RelativePath, Strict
from flows.contract.registered import WorkflowName

JOB_ID = "{{ job.id }}"
"""As a value in `parameters`, the id of the job that has completed."""

FILE = "{{ file }}"
"""As a value in `parameters`, the path of the new file."""

_EXAMPLE: dict[str, JsonValue] = {
    "completed": "alignment",
    "outputs": {"resources/aligned": "results/aligned"},
    "parameters": {"config": {"aligned_by": JOB_ID}},
}


class NewTrigger(Strict):
    """What makes a job of a registered workflow: a job of another one that has completed, or a new file."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    completed: WorkflowName | None = Field(
        default=None,
        description="A registered workflow of the same group: each of its jobs that completes makes a job.",
    )
    new_file: str | None = Field(
        default=None,
        min_length=2,
        max_length=500,
        description="Files below a data root of the group, as an absolute path that may have `*`, `?` and "
        "`[…]`: each one that is new or has changed makes a job.",
        examples=["/srv/data/incoming/*.fastq.gz"],
    )
    file_as: RelativePath | None = Field(
        default=None, description="Where the new job finds that file, as in `inputs`."
    )
    outputs: dict[RelativePath, PublishedPath] = Field(
        default_factory=dict,
        max_length=1000,
        description="What that job has made, by the place where the new job finds it, as in `inputs`.",
    )
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="What the new job sets, as in `POST /jobs`. The value `{{ job.id }}` becomes the id of "
        "the job that has completed, `{{ file }}` the path of the new file.",
    )

    @model_validator(mode="after")
    def _is_one_trigger(self) -> "NewTrigger":
        if (self.completed is None) == (self.new_file is None):
            raise ValueError("give exactly one of completed and new_file")
        if self.completed is None and self.outputs:
            raise ValueError("outputs needs completed")
        if self.new_file is None and self.file_as is not None:
            raise ValueError("file_as needs new_file")
        return self


class Trigger(BaseModel):
    """A trigger of a registered workflow. It is an automation in Prefect."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"slug": "after-alignment", "active": True, **_EXAMPLE}]}
    )

    slug: str = Field(description="Its name in the workflow.")
    active: bool = Field(description="Whether it makes jobs. It can be paused in Prefect.")
    completed: str | None = Field(default=None, description="The workflow whose jobs make jobs of this one.")
    new_file: str | None = Field(default=None, description="The files that make jobs of this one.")
    file_as: str | None = Field(default=None, description="Where the new job finds the file.")
    outputs: dict[str, str] = Field(description="What those have made, by the place in the new job.")
    parameters: dict[str, Any] = Field(description="What the new job sets.")


class TriggerList(BaseModel):
    """The triggers of a registered workflow."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"slug": "after-alignment", "active": True, **_EXAMPLE}]}]}
    )

    items: list[Trigger]
