"""What all tables of the settings file have in common, and the types that several of them use."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class SettingsRefused(Exception):
    """The settings are invalid. The message names each field and what to do."""


class StrictModel(BaseModel):
    """A table of the settings file. Unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _arn(service: str) -> Any:
    return Field(pattern=rf"^arn:aws[a-z-]*:{service}:[a-z0-9-]*:[0-9]*:\S+$")


CertificateArn = Annotated[str, _arn("acm")]
SecretArn = Annotated[
    str, Field(pattern=r"^arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:\S+-\w{6}$")
]
"""A complete ARN, with the six characters at its end: ECS and the grants name the secret exactly."""
