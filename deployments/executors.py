"""Checks the clusters that `prefect.yaml` declares, before jobs are submitted to them."""

from collections.abc import Callable, Collection
from pathlib import Path

from flows.contract.environments import EnvironmentSettings
from flows.contract.executors import ClusterExecutor, ExecutorSettings, mistakes
from flows.engines.cluster import PluginMissing, settings_of_plugin
from flows.environments.making import Environments
from flows.environments.uv import EnvironmentFailure


class ExecutorRefused(ValueError):
    """A declaration is wrong; the message has a line for each mistake."""


def check_executors(home: Path, groups: Collection[str], say: Callable[[str], None]) -> None:
    """Ask the plugin of each declared executor for its settings, and compare. Raises `ExecutorRefused`.

    `groups` are the groups that there are.
    This creates the default environment with the plugin, which jobs without an own environment use.
    """
    declared = ExecutorSettings().executors_by_group
    environments = Environments(EnvironmentSettings(), home, say)
    wrong = [
        f"executors.{group}: {mistake}."
        for group, executor in declared.items()
        for mistake in (*_unknown(group, groups), *_mistakes(executor, environments))
    ]
    if wrong:
        raise ExecutorRefused("\n".join(wrong))


def _unknown(group: str, groups: Collection[str]) -> list[str]:
    return [] if group in groups else [f"there is no such group; known: {', '.join(sorted(groups))}"]


def _mistakes(executor: ClusterExecutor, environments: Environments) -> list[str]:
    try:
        environment = environments.get(environments.wanted(None, more=(executor.requirement,)))
        return mistakes(executor, settings_of_plugin(executor.executor, environment))
    except EnvironmentFailure as failure:
        return [f"its plugin can't be installed ({failure})"]
    except (PluginMissing, OSError) as failure:
        return [str(failure)]
