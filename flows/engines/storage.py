"""The default storage of a job as arguments of `snakemake`, and the plugin that it needs."""

from collections.abc import Iterator

from flows.contract.sources import DefaultStorage
from flows.environments.environment import Environment


def storage_arguments(storage: DefaultStorage | None) -> list[str]:
    """The arguments for `storage`; none without it."""
    if storage is None:
        return []
    return [
        f"--default-storage-provider={storage.provider}",
        f"--default-storage-prefix={storage.prefix}",
        *_settings(storage),
    ]


def missing_plugin(storage: DefaultStorage | None, environment: Environment | None) -> str | None:
    """The package that `storage` needs and `environment` lacks."""
    if storage is None or environment is None:
        return None
    package = f"snakemake-storage-plugin-{storage.provider}"
    return None if environment.record.has(package) else package


def _settings(storage: DefaultStorage) -> Iterator[str]:
    for name, value in storage.settings.items():
        option = f"--storage-{storage.provider}-{name.replace('_', '-')}"
        if value is True:
            yield option
        elif value is not False:
            yield f"{option}={value}"
