"""Writes docs/configuration.md from the settings classes: `python -m tests.docs.configuration`."""

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import AliasChoices, HttpUrl, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from api.insight.cost import Prices
from api.settings import Settings
from deployments.broker import BrokerSettings
from deployments.ecs import WorkPoolSettings
from deployments.ecs_worker import TaskSettings
from deployments.local import PROJECT
from deployments.reconciler import ReconcilerSettings
from deployments.registration import RegistrationSettings
from deployments.settings import LocalSettings
from flows.contract.environments import EnvironmentSettings, SoftwareSettings
from flows.contract.executors import ExecutorSettings
from flows.contract.isolation import IsolationSettings
from flows.contract.presentation import PresentationSettings
from flows.contract.secrets import SecretSettings
from flows.engines.batch_credentials import BatchCredentialSettings
from flows.worker.warm_environments import WarmSettings
from flows.worker.worker import WorkerSettings
from flows.workspace.git_credentials import GitCredentialSettings
from flows.workspace.settings import WorkspaceSettings

PAGE = PROJECT / "docs" / "configuration.md"
PACKAGES = ("api", "flows", "deployments")
_NO_SETTINGS = ("flows.snakemake_process", "flows.examples")
"""They run in Snakemake's own process, which sees no variable of the service."""

PROGRAMS: Mapping[str, Sequence[type[BaseSettings]]] = {
    "jobs API": (Settings, Prices),
    "worker": (
        WorkspaceSettings,
        EnvironmentSettings,
        ExecutorSettings,
        BatchCredentialSettings,
        SoftwareSettings,
        SecretSettings,
        GitCredentialSettings,
        IsolationSettings,
        WorkerSettings,
        WarmSettings,
        PresentationSettings,
    ),
    "environments": (EnvironmentSettings, ExecutorSettings),
    "registration": (RegistrationSettings, ExecutorSettings, WorkPoolSettings),
    "ECS worker": (TaskSettings,),
    "reconciler": (ReconcilerSettings, ExecutorSettings),
    "larger Prefect server": (BrokerSettings,),
    "`make up`": (LocalSettings,),
}
_COMMANDS = {
    "jobs API": "`python -m api`",
    "worker": "`prefect worker start --type snakemake`, and the flow process of each job",
    "environments": "`python -m deployments environments`, which reads `JOBS_HOME` too",
    "registration": "`python -m deployments register`, which reads `JOBS_PREFECT_FILE` too; "
    "`JOBS_ECS_…` with `--work-pool ecs` only",
    "ECS worker": "`python -m deployments.ecs_worker`; it puts what a task needs into its variables",
    "reconciler": "`python -m deployments reconcile`",
    "larger Prefect server": "`python -m deployments.server api`, `services` and `migrate`, where `make up` "
    "does not start them",
    "`make up`": "`make up`, `make demo`; it passes its environment on to the other programs",
}
_COMPUTED = {
    "JOBS_DATA_ROOTS": "none",
    "JOBS_PROJECT_ROOTS": "none",
    "JOBS_VISIBLE_DIRECTORIES": "none",
    "JOBS_WRITABLE_DIRECTORIES": "none",
    "JOBS_WORKFLOW_ROOTS": "the working directory",
}
"""Defaults that a function gives."""

_TITLE = """# Configuration

Every setting is an environment variable, read once when its program starts. Prefect's, AWS's and \
OpenTelemetry's own variables keep their names and hold as well. Lists are separated by commas, \
directories by `:`.

This page is made from the settings classes by `make configuration`.

| program | is |
|---|---|
"""
_OTHERS = {
    "`JOBS_URL`": ("command line", "where the service is; `http://127.0.0.1:8000` when absent"),
    "`JOBS_TOKEN`": ("command line, `make demo`", "the token"),
    "`SNAKEMAKE_OUTPUT_CACHE`": (
        "worker",
        "where outputs are that jobs share with `options.cache`; below `JOBS_HOME` when absent",
    ),
    "`PREFECT_API_URL`": (
        "jobs API, worker, registration, reconciler",
        "the API of the Prefect server; `make up` sets it",
    ),
    "`PREFECT_API_AUTH_STRING`": (
        "jobs API, worker, registration, reconciler",
        "the password of the Prefect server",
    ),
    "`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`": (
        "jobs API, with the extra `otel`",
        "where traces go, and under which name",
    ),
    "`AWS_REGION`, `AWS_ENDPOINT_URL`, …": (
        "jobs API, worker, with `JOBS_STORAGE_URL`",
        "which bucket is asked where, and with which credentials",
    ),
}
"""Variables that no settings class has: who reads them, and what they mean."""


@dataclass(frozen=True)
class Variable:
    """One environment variable, as every program that reads it has it."""

    name: str
    fields: Mapping[str, FieldInfo]
    """By program."""

    @property
    def programs(self) -> tuple[str, ...]:
        return tuple(self.fields)

    def row(self) -> str:
        first = next(iter(self.fields.values()))
        allowed = _allowed(first)
        default = f"{self._default()} ({allowed})" if allowed else self._default()
        cells = [f"`{self.name}`", (first.description or "").rstrip("."), default]
        if len(self.fields) > 1:
            cells.append(", ".join(self.fields))
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def _default(self) -> str:
        """Where programs differ, that of each."""
        programs: dict[str, list[str]] = {}
        for program, field in self.fields.items():
            programs.setdefault(_written(field, self.name), []).append(program)
        if len(programs) == 1:
            return next(iter(programs))
        return "; ".join(f"{default} ({', '.join(names)})" for default, names in programs.items())


def settings_classes() -> set[type[BaseSettings]]:
    """Every one in our packages, wherever it stands."""
    for name in _modules():
        importlib.import_module(name)
    return {found for found in _subclasses(BaseSettings) if found.__module__.startswith(PACKAGES)}


def page() -> str:
    variables = _variables()
    parts = [_TITLE, "".join(f"| {name} | {command} |\n" for name, command in _COMMANDS.items())]
    shared = [variable for variable in variables if len(variable.programs) > 1]
    heading = "| variable | meaning | default (allowed) | read by |\n|---|---|---|---|\n"
    parts.append(f"\n## Shared\n\n{heading}{_rows(shared)}")
    for program in PROGRAMS:
        own = [variable for variable in variables if variable.programs == (program,)]
        heading = "| variable | meaning | default (allowed) |\n|---|---|---|\n"
        title = program.strip("`")
        parts.append(f"\n## {title[:1].upper()}{title[1:]}\n\n{heading}{_rows(own)}" if own else "")
    others = "".join(
        f"| {name} | {programs} | {meaning} |\n" for name, (programs, meaning) in _OTHERS.items()
    )
    heading = "| variable | read by | meaning |\n|---|---|---|\n"
    return "".join([*parts, f"\n## Variables without a settings class\n\n{heading}{others}"])


def _rows(variables: Iterable[Variable]) -> str:
    return "".join(f"{variable.row()}\n" for variable in variables)


def _variables() -> list[Variable]:
    fields: dict[str, dict[str, FieldInfo]] = {}
    for program, classes in PROGRAMS.items():
        for settings in classes:
            for name, field in settings.model_fields.items():
                fields.setdefault(_variable_name(settings, name, field), {}).setdefault(program, field)
    return [Variable(name, by_program) for name, by_program in fields.items()]


def _variable_name(settings: type[BaseSettings], name: str, field: FieldInfo) -> str:
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def _written(field: FieldInfo, name: str) -> str:
    if field.is_required():
        return "**needed**"
    if field.default_factory is not None:
        return _COMPUTED[name]
    default = field.default
    if default is None or default in ((), {}):
        return "–"
    if isinstance(default, Path):
        path = default.relative_to(PROJECT) if default.is_relative_to(PROJECT) else default
        return f"`{path}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int) and default >= 1 << 20:
        return f"{default:,}"
    return "`" + (",".join(map(str, default)) if isinstance(default, tuple) else str(default)) + "`"


def _allowed(field: FieldInfo) -> str:
    choices = list(_choices(field.annotation))
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(bound, name):,}"
        for bound in field.metadata
        for name, sign in signs.items()
        if isinstance(getattr(bound, name, None), int | float)
    ]
    return ", ".join(bounds) or _kind(field.annotation)


def _choices(annotation: object) -> Iterator[object]:
    """What an enum or a literal may be, also inside of a tuple or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (member.value for member in annotation)
    elif get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def _kind(annotation: object) -> str:
    kinds = {bool: "`true`, `false`", Path: "a path", HttpUrl: "a URL", SecretStr: "secret"}
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and part in kinds:
            return kinds[part]
    return ""


def _modules() -> Iterator[str]:
    for package in PACKAGES:
        for found in pkgutil.walk_packages([str(PROJECT / package)], f"{package}."):
            if not found.name.startswith(_NO_SETTINGS) and not found.name.endswith("__main__"):
                yield found.name


def _subclasses(of: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
    for found in of.__subclasses__():
        yield found
        yield from _subclasses(found)


if __name__ == "__main__":
    PAGE.write_text(page())
