"""Which of Prefect's Secret blocks the jobs of a group may use. The API checks it, and so does the flow."""

from collections.abc import Mapping

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.contract.sources import SecretName
from flows.contract.untrusted_tree import Refused

EVERY_GROUP = "*"


class SecretSettings(BaseSettings):
    """The operator's settings for the secrets of jobs."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    secret_blocks: dict[str, tuple[SecretName, ...]] = Field(
        default={},
        description="The Secret blocks of Prefect that jobs may use (`secrets`), by group, as JSON: "
        '`{"genomics": ["ncbi-api-key"]}`. The group `*` stands for every group.',
    )

    def blocks_of(self, group: str) -> set[str]:
        """The names of the blocks that jobs of this group may use."""
        return {*self.secret_blocks.get(group, ()), *self.secret_blocks.get(EVERY_GROUP, ())}


class SecretRefused(Refused):
    """The group's jobs may not use this block."""

    def __init__(self, variable: str, block: str, group: str) -> None:
        super().__init__(
            f"jobs of the group '{group}' may not use the Secret block '{block}'",
            "Ask the operator to allow it: JOBS_SECRET_BLOCKS lists the blocks of each group, "
            f'for example {{"{group}": ["{block}"]}}.',
        )
        self.variable = variable


def check_secrets(secrets: Mapping[str, str], group: str, settings: SecretSettings) -> None:
    """Raises `SecretRefused` for the first block that is not allowed. `secrets` are blocks by variable."""
    allowed = settings.blocks_of(group)
    for variable, block in secrets.items():
        if block not in allowed:
            raise SecretRefused(variable, block, group)
