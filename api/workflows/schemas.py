"""What clients send and read about registered workflows."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from api.web.schemas import UtcDatetime
from flows.contract.registered import RegisteredVersion, TableDescription
from flows.contract.spec import DEFAULT_GROUP, EngineName, ExecutionSpec, JobSpec

_SPEC_EXAMPLE: dict[str, JsonValue] = {
    "workflow": {"git": "https://github.com/owner/repository", "ref": "v1.2.0"},
    "environment": {"packages": ["snakemake == 9.14.0", "pandas"]},
    "cores": 4,
}


_VERSION_EXAMPLE: dict[str, JsonValue] = {
    "name": "rnaseq",
    "version": "1.2.0",
    "group": "default",
    "default": True,
    "retired": False,
    "registered_at": "2025-10-07T09:30:00Z",
    "registered_by": "ci",
    "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "job": {
        "workflow": {
            "git": "https://github.com/owner/repository",
            "ref": "9fceb02d0ae598e95dc970b74767f19372d61af8",
        },
        "cores": 4,
    },
}
_WORKFLOW_EXAMPLE: dict[str, JsonValue] = {
    "name": "rnaseq",
    "group": "default",
    "default_version": "1.2.0",
    "prefect": "https://prefect.example.org/deployments/deployment/0199c2f4-6d1e-7c35-b5d1-6d3f5b0a9c11",
}
_DETAILS_EXAMPLE: dict[str, JsonValue] = {
    "readme": "# RNA-seq",
    "config": {"depth": 30},
    "config_schema": {
        "type": "object",
        "properties": {"depth": {"type": "integer", "description": "Reads for each base."}},
    },
    "config_schema_file": "workflow/schemas/config.schema.yaml",
    "tables": [
        {
            "path": "config/samples.tsv",
            "schema_file": "workflow/schemas/samples.schema.yaml",
            "row_schema": {"properties": {"sample": {"type": "string"}}, "required": ["sample"]},
        }
    ],
}


class NewVersion(ExecutionSpec):
    """A version to register: where it comes from, and what its jobs begin with."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SPEC_EXAMPLE]})

    group: str = Field(default=DEFAULT_GROUP, description="The group that runs its jobs.")
    default: bool = Field(
        default=True, description="Whether jobs that name no version run this one from now on."
    )

    @model_validator(mode="after")
    def _has_a_source(self) -> "NewVersion":
        if self.engine is not EngineName.SNAKEMAKE or self.workflow is None or self.workflow.name is not None:
            raise ValueError("a version needs a workflow with path, git or bundle")
        if self.dry_run or self.directory is not None:
            raise ValueError("dry_run and directory belong to a job, not to a version")
        return self

    def spec(self, job_name: str) -> JobSpec:
        """The job spec, with a name."""
        fields = self.model_dump(mode="json", exclude_unset=True, exclude={"default"})
        return JobSpec.model_validate({**fields, "name": job_name})


class WorkflowVersion(BaseModel):
    """A version of a registered workflow."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VERSION_EXAMPLE]})

    name: str
    version: str
    group: str = Field(description="The group that runs its jobs.")
    default: bool = Field(description="Whether jobs that name no version run it.")
    retired: bool = Field(description="Whether new jobs of it are refused.")
    registered_at: UtcDatetime
    registered_by: str = Field(description="The name of the token that registered it.")
    commit: str | None = Field(description="The commit of a workflow from a git repository.")
    job: dict[str, JsonValue] = Field(description="The job spec that its jobs begin with.")

    @classmethod
    def of(cls, version: RegisteredVersion, default: str | None) -> "WorkflowVersion":
        return cls(**_fields(version, default))


class WorkflowVersionDetails(WorkflowVersion):
    """A version of a registered workflow, with what it says about itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_VERSION_EXAMPLE, **_DETAILS_EXAMPLE}]})

    readme: str = Field(description="The beginning of its README.")
    config: dict[str, JsonValue] = Field(description="The configuration in its configuration files.")
    config_schema: dict[str, Any] = Field(description="The JSON Schema of its configuration.")
    config_schema_file: str | None = Field(
        description="Where the schema comes from; derived from the configuration when null."
    )
    tables: list[TableDescription] = Field(description="Tables with a schema of their own.")

    @classmethod
    def of(cls, version: RegisteredVersion, default: str | None) -> "WorkflowVersionDetails":
        described = version.description
        return cls(
            **_fields(version, default),
            readme=described.readme,
            config=described.config,
            config_schema=described.config_schema,
            config_schema_file=described.config_schema_file,
            tables=list(described.tables),
        )


class RegisteredWorkflow(BaseModel):
    """A workflow that is run by name. It is a deployment in Prefect, with a run form."""

    name: str
    group: str = Field(description="The group that runs its jobs.")
    default_version: str | None = Field(description="The version of jobs that name none.")
    prefect: str = Field(description="The deployment in Prefect's UI.")


class WorkflowDetails(RegisteredWorkflow):
    """A registered workflow with its versions, the newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_WORKFLOW_EXAMPLE, "versions": [_VERSION_EXAMPLE]}]}
    )

    versions: list[WorkflowVersion]


class WorkflowList(BaseModel):
    """Every registered workflow that the caller may run, by name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_WORKFLOW_EXAMPLE]}]})

    items: list[RegisteredWorkflow]


def _fields(version: RegisteredVersion, default: str | None) -> dict[str, Any]:
    return {
        **version.model_dump(exclude={"description", "sha256"}),
        "default": version.version == default,
        "commit": version.description.commit,
    }
