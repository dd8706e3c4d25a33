"""Which directories of the server a job may read as data or work in, beside its own directory.

    JOBS_DATA_ROOTS=/srv/data:/srv/references
    JOBS_PROJECT_ROOTS={"*": ["/srv/shared"], "clinical": ["/srv/clinical"]}

The first form is for all groups. The second names groups; `*` stands for all.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from flows.contract.untrusted_tree import Refused
from flows.contract.workflow_roots import root_above

EVERY_GROUP = "*"


def _by_group(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return json.loads(value)
    return {EVERY_GROUP: [part for part in value.split(os.pathsep) if part]}


def _absolute(value: Mapping[str, Sequence[Path]]) -> dict[str, tuple[Path, ...]]:
    # Resolved now, because the working directory may change later.
    return {group: tuple(path.absolute() for path in paths) for group, paths in value.items()}


GroupRoots = Annotated[
    dict[str, tuple[Path, ...]], NoDecode, BeforeValidator(_by_group), AfterValidator(_absolute)
]


class RootSettings(BaseSettings):
    """The operator's data roots and project roots. Set the same values for the API and the worker."""

    model_config = SettingsConfigDict(env_prefix="JOBS_")

    data_roots: GroupRoots = Field(
        default_factory=dict,
        description="Directories with data that jobs may use (`inputs`), separated by ':'; or a JSON object "
        "of lists by group, where `*` stands for every group.",
    )
    project_roots: GroupRoots = Field(
        default_factory=dict,
        description="Directories below which jobs may work in place (`directory`), written as in "
        "`JOBS_DATA_ROOTS`.",
    )

    def data_roots_of(self, group: str) -> tuple[Path, ...]:
        return roots_of(self.data_roots, group)

    def project_roots_of(self, group: str) -> tuple[Path, ...]:
        return roots_of(self.project_roots, group)

    @property
    def all_project_roots(self) -> tuple[Path, ...]:
        """Those of every group."""
        return tuple({root: None for roots in self.project_roots.values() for root in roots})


class DataRefused(Refused):
    """The job may not use this path; `resolution` says what the submitter can do."""


def roots_of(roots: Mapping[str, Sequence[Path]], group: str) -> tuple[Path, ...]:
    """The roots of one group, with those of every group."""
    return (*roots.get(EVERY_GROUP, ()), *(roots.get(group, ()) if group != EVERY_GROUP else ()))


def check_input_path(path: str, roots: Sequence[Path]) -> Path:
    """The file or directory that an input names, with links resolved. Raises `DataRefused`.

    Where this machine does not have the root, its name alone counts.
    """
    return _checked(path, roots, "an input", "data root", "JOBS_DATA_ROOTS", os.path.exists)


def check_project_path(path: str, roots: Sequence[Path]) -> Path:
    """The directory to work in, with links resolved. Raises `DataRefused`, as `check_input_path` does."""
    return _checked(path, roots, "the directory", "project root", "JOBS_PROJECT_ROOTS", os.path.isdir)


def _checked(
    path: str, roots: Sequence[Path], what: str, kind: str, setting: str, exists: Callable[[Path], bool]
) -> Path:
    real = Path(os.path.realpath(path))
    root = root_above(real, roots)
    if root is None:
        offered = ", ".join(map(str, roots)) or f"(no {kind} is set for this group)"
        raise DataRefused(
            f"{what} '{path}' is not under a {kind} of this group",
            f"Use a path under one of: {offered}. The operator sets them with {setting}.",
        )
    if os.path.isdir(root) and not exists(real):
        raise DataRefused(f"{what} '{path}' does not exist on the server", "Correct its path.")
    return real
