"""Where jobs live, and where workflows may come from."""

from pydantic_settings import SettingsConfigDict

from flows.contract.addresses import SourceSettings
from flows.contract.bundles import BundleLimits
from flows.contract.storage import StorageSettings
from flows.workspace.git import CheckoutSettings


class WorkspaceSettings(StorageSettings, SourceSettings, BundleLimits, CheckoutSettings):
    """What an operator can set of a job's directory."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")
