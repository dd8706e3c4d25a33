"""Where the image comes from, and who may push it and deploy."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from infra.settings.strict import SettingsRefused, StrictModel

PROJECT = Path(__file__).parents[2]


class BuiltImage(StrictModel):
    """Build the image from this checkout at each deployment. That needs Docker, Finch or Podman."""

    kind: Literal["built"] = "built"
    directory: Path = Field(default=Path(), description="The build's context, from this checkout's root.")
    dockerfile: str = Field(default="deployments/Dockerfile", description="Below that directory.")

    @property
    def context(self) -> Path:
        """The directory of the build. Raises `SettingsRefused` if it has no Dockerfile."""
        context = PROJECT / self.directory
        if not (context / self.dockerfile).is_file():
            raise SettingsRefused(f"image: {context / self.dockerfile} does not exist; use a pushed image.")
        return context


class PushedImage(StrictModel):
    """Use an image that was pushed to the repository of this deployment, for example by CI."""

    kind: Literal["pushed"]
    digest: str = Field(
        pattern=r"^(sha256:[0-9a-f]{64}|[\w][\w.-]{0,127})$",
        description="`sha256:…`, which always names the same image; or a tag.",
    )


class ForeignImage(StrictModel):
    """Use an image in a registry that needs no login."""

    kind: Literal["foreign"]
    uri: str = Field(min_length=1, description="Registry, repository and digest or tag.")

    @field_validator("uri")
    @classmethod
    def _needs_no_login(cls, value: str) -> str:
        if ".dkr.ecr." in value:
            raise ValueError(
                "an ECR registry needs a right that this deployment does not grant: "
                'push the image to the repository of this deployment, and name it with kind = "pushed"'
            )
        return value


class GitHub(StrictModel):
    """Allow one repository's workflows to push the image, and those of one environment to deploy."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    branch: str = Field(default="main", min_length=1, description="Its workflows may push images.")
    environment: str = Field(default="production", min_length=1, description="Its workflows may deploy.")
    provider_arn: str | None = Field(
        default=None, description="GitHub's OIDC provider, if the account has it already."
    )
