"""What a job that resumes another one does differently: a JSON merge patch of the other's spec."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from api.web.validation import problem_of
from flows.contract.spec import ExecutionSpec, JobSpec

_Patch = dict[str, JsonValue]


class JobChanges(BaseModel):
    """Fields of the job spec to change: objects key by key; `null` removes a key (RFC 7396)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"config": {"depth": 30}, "options": {"keep_going": True}, "workflow": {"ref": "v1.3.0"}}
            ]
        },
    )

    workflow: _Patch = Field(
        default_factory=dict,
        description="Another `ref` or bundle. Results stay; changed files replace others.",
    )
    config: _Patch = Field(default_factory=dict, description="Keys of the configuration.")
    inputs: _Patch = Field(default_factory=dict, description="Links to data.")
    files: _Patch = Field(default_factory=dict, description="Small files.")
    targets: list[str] | None = Field(default=None, description="Other targets.")
    environment: JsonValue = Field(
        default=None, description="Another Python environment; that of the other job when absent."
    )
    software: list[str] | None = Field(default=None, description="Other software deployment methods.")
    env: _Patch = Field(default_factory=dict, description="Environment variables.")
    secrets: _Patch = Field(default_factory=dict, description="Names of Secret blocks.")
    cores: int | None = Field(default=None, description="Another number of cores.")
    resources: _Patch = Field(default_factory=dict, description="Limits of resources.")
    timeout_seconds: float | None = Field(default=None, description="Another time limit.")
    options: _Patch = Field(default_factory=dict, description="Options of Snakemake.")

    @property
    def fields(self) -> list[str]:
        """The fields that change, in alphabetical order."""
        return sorted(self.model_fields_set)

    def apply(self, parameters: Mapping[str, Any], group: str) -> JobSpec:
        """The spec of a job with these parameters after the changes. Raises `InvalidRequest`."""
        kept = {name: value for name, value in parameters.items() if name in ExecutionSpec.model_fields}
        patched = _merged(kept, self.model_dump(mode="json", exclude_unset=True))
        try:
            return JobSpec.model_validate({**patched, "group": group})
        except ValidationError as error:
            errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
            raise problem_of(errors, JobSpec) from error


def _merged(target: Any, patch: JsonValue) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged
