"""Where the files of a job come from: its workflow, its data, and the directory that it works in."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from flows.contract.field_types import Name, OneLine, Strict, relative_path
from flows.contract.registered import WorkflowName, WorkflowVersion
from flows.contract.variables import is_credential, settable, variable_of_setting

FileText = Annotated[str, Field(max_length=500_000)]
"""The content of a file, as UTF-8 text."""

VariableName = Annotated[Name, AfterValidator(settable)]
"""The name of an environment variable that a job may set."""

VariableValue = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]
"""The value of an environment variable."""

SecretName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=200)]
"""The name of a Secret block of Prefect."""


def _subdirectory(value: str) -> str:
    return value if value == "." else relative_path(value)


class WorkflowSource(Strict):
    """Where the workflow comes from: exactly one of `path`, `git`, `bundle` and `name`."""

    path: Annotated[str, OneLine] | None = Field(
        default=None,
        description="A directory on the server, under one of its workflow roots.",
        examples=["/srv/workflows/variants"],
        min_length=1,
        max_length=4096,
    )
    git: Annotated[str, OneLine] | None = Field(
        default=None,
        description="The address of a git repository, as for `git clone`.",
        examples=["https://github.com/snakemake-workflows/dna-seq-varlociraptor"],
        min_length=1,
        max_length=2048,
    )
    bundle: str | None = Field(
        default=None,
        description="The id of a bundle, from the response to `PUT /bundles`.",
        pattern=r"^sha256:[0-9a-f]{64}$",
    )
    name: WorkflowName | None = Field(
        default=None, description="A registered workflow (`GET /workflows`).", examples=["rnaseq"]
    )
    version: WorkflowVersion | None = Field(
        default=None,
        description="With `name`: the version; the workflow's default version when absent.",
        examples=["1.2.0"],
    )
    ref: str | None = Field(
        default=None,
        description="With `git`: a branch, a tag or a full commit id; the repository's HEAD when absent.",
        pattern=r"^[A-Za-z0-9_][\w./+@-]*$",
        max_length=250,
        examples=["v1.2.0"],
    )
    subdir: Annotated[str, AfterValidator(_subdirectory), OneLine] | None = Field(
        default=None,
        description="With `git` or `bundle`: the directory in it that contains the workflow.",
        max_length=1024,
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = ("path", "git", "bundle", "name")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of path, git, bundle and name; given: {', '.join(given) or 'none of them'}"
            )
        if self.version is not None and self.name is None:
            raise ValueError("version is only allowed with name")
        if self.ref is not None and self.git is None:
            raise ValueError("ref is only allowed with git")
        if self.subdir is not None and self.path is not None:
            raise ValueError("subdir is only allowed with git or bundle; append it to path instead")
        if self.subdir is not None and self.name is not None:
            raise ValueError("subdir is only allowed with git or bundle")
        return self


_ServerPath = Annotated[str, OneLine, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")]


class Input(Strict):
    """A file or a directory of the server: below a data root of the job's group, or made by another job."""

    path: Annotated[str, OneLine, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")] = Field(
        description="Its absolute path; with `job`, the path in the working directory of that job.",
        examples=["/srv/data/run42"],
    )
    job: UUID | None = Field(
        default=None,
        description="A job of the same group that has completed, whose outputs are the data. They are "
        "linked, so that job must stay.",
    )

    @model_validator(mode="after")
    def _is_where_it_says(self) -> Self:
        if self.job is not None:
            relative_path(self.path)
        elif not self.path.startswith("/"):
            raise ValueError("path must be absolute, unless `job` names the job that has made it")
        return self


class ProjectDirectory(Strict):
    """A directory of the server that a job works in, below a project root of the job's group."""

    path: _ServerPath = Field(description="Its absolute path.", examples=["/srv/projects/trio"])


def _no_credential(value: str, info: ValidationInfo) -> str:
    if is_credential(value):
        variable = variable_of_setting(info.data.get("provider", "PROVIDER"), value)
        raise ValueError(f"{value} is a credential: set {variable} in `secrets` instead")
    return value


class DefaultStorage(Strict):
    """The storage of files that have no storage of their own, by one of Snakemake's storage plugins."""

    provider: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=50)] = Field(
        description="The name of the storage plugin.", examples=["s3"]
    )
    prefix: Annotated[str, OneLine] = Field(
        min_length=1,
        max_length=2000,
        pattern=r"^[^-\x00\n][^\x00\n]*$",
        description="Comes before each path.",
        examples=["s3://bucket/project"],
    )
    settings: dict[Annotated[Name, AfterValidator(_no_credential)], str | int | bool] = Field(
        default_factory=dict,
        max_length=50,
        description="Settings of the plugin, as its options without `--storage-PROVIDER-`, with "
        "underscores. Credentials don't belong here: use `secrets`.",
        examples=[{"endpoint_url": "https://s3.example.org"}],
    )
