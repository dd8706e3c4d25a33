"""Applies profiles with what the job and the service decide.

| in a profile                          | what happens                                              |
|---------------------------------------|-----------------------------------------------------------|
| an option of `USABLE`                 | applies, unless the job sets it                           |
| `config`, `configfile`                | apply; the job's `config` overrides single keys of them   |
| a software deployment method          | applies if the operator allows it and the job names none  |
| `default-resources`                   | apply over those of the cluster that the operator sets    |
| every other key, such as `executor`   | is ignored, with a note that names it                     |

Snakemake itself reads the profiles. It lets an option of its command line replace the same key of a
profile as a whole, and `config` of a profile override every file (`snakemake.cli.parse_args`).
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import snakemake.cli
import snakemake.profiles
import snakemake.resources

from flows.snakemake_process.decisions import ClusterDecisions, Decisions
from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import Message

USABLE = frozenset(
    """
    all-temp allowed-rules batch cache config configfile configfiles consider-ancient default-res
    default-resources default-storage-prefix default-storage-provider envvars force forceall forcerun
    group-components groups keep-going keep-incomplete latency-wait max-inventory-time max-threads
    no-hooks notemp nt omit-from output-wait printshellcmds prioritize quiet rerun-incomplete
    rerun-triggers res resources restart-times retries ri set-resource-scopes set-resources set-scatter
    set-threads shadow-prefix show-failed-logs skip-script-cleanup strict-dag-evaluation touch trust-io-cache
    until verbose
    """.split()  # noqa: SIM905 - a list would take 45 lines
)
"""Keys that a profile may set. Aliases are separate keys."""

_DEFAULT_RESOURCES = frozenset({"default-res", "default-resources"})
_METHODS = {
    "use-apptainer": "apptainer",
    "use-conda": "conda",
    "use-envmodules": "env-modules",
    "use-singularity": "apptainer",
}
_METHOD_LISTS = frozenset({"deployment", "deployment-method", "sdm", "software-deployment-method"})
_ALIASES = {"retries": ("restart-times",), "rerun-incomplete": ("ri",), "notemp": ("nt",)}


def install(decisions: Decisions) -> None:
    """Apply `decisions` to all profiles that this process reads. Call it once."""
    parser: Any = snakemake.profiles.ProfileConfigFileParser
    parse, args_to_api = parser.parse, snakemake.cli.args_to_api
    profiles = _Profiles(decisions)

    def parse_usable(self: Any, stream: Any) -> dict[str, Any]:
        return profiles.usable(parse(self, stream))

    def args_to_api_with_config(args: Any, parser: Any) -> Any:
        profiles.complete(args)
        if decisions.cluster is not None:
            _complete_for_cluster(args, parser, decisions.cluster)
        return args_to_api(args, parser)

    parser.parse = parse_usable
    snakemake.cli.args_to_api = args_to_api_with_config


class _Profiles:
    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._off = {key for option in decisions.switched_off for key in (option, *_ALIASES.get(option, ()))}
        self._ignored: set[str] = set()

    def usable(self, profile: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a profile that applies."""
        usable: dict[str, Any] = {}
        for key, value in profile.items():
            name = key.lstrip("-").replace("_", "-")
            if name in _DEFAULT_RESOURCES and self._decisions.cluster is not None:
                value = self._with_cluster_defaults(value, self._decisions.cluster)
            if name in _METHODS or name in _METHOD_LISTS:
                allowed = self._methods(name, value)
                if allowed:
                    usable[key] = allowed if name in _METHOD_LISTS else value
            elif name in USABLE or name.startswith("storage-"):
                if name not in self._off:
                    usable[key] = value
            else:
                self._ignored.add(name)
        return usable

    def complete(self, args: Any) -> None:
        """Complete the parsed command line: the job's `config` comes last."""
        self._note_ignored()
        for method in _deployed(args):
            os.environ.update(self._decisions.method_variables.get(method, {}))
        if self._decisions.config_file is None:
            return
        files = [*(args.configfile or ()), *self._config_of_profiles(args.config)]
        args.configfile = [*files, Path(self._decisions.config_file)]
        args.config = None

    def _config_of_profiles(self, entries: Iterable[str] | None) -> list[Path]:
        """Their `config` as a file, because Snakemake would let it override the job's."""
        config = snakemake.cli.parse_config(entries)
        if not config or self._decisions.private_directory is None:
            return []
        file = Path(self._decisions.private_directory, "profile-config.json")
        file.write_text(json.dumps(config))
        return [file]

    def _with_cluster_defaults(self, value: Any, cluster: ClusterDecisions) -> list[str]:
        """The default resources of a profile over those of the cluster, which Snakemake would drop."""
        named = dict(_pair(each) for each in _as_list(value))
        taken = [name for name in named if name in cluster.operator_resources]
        self._ignored.update(f"default-resources: {name}" for name in taken)
        resources = {**cluster.default_resources, **{key: named[key] for key in named if key not in taken}}
        return [f"{name}={resource}" for name, resource in resources.items()]

    def _methods(self, name: str, value: Any) -> list[str]:
        """The methods that a key of a profile names, without those that are not allowed."""
        if self._decisions.names_software:
            return []
        if name in _METHODS:
            named = [_METHODS[name]] if value in (True, "True", "true") else []
        else:
            named = value if isinstance(value, list) else str(value).replace(",", " ").split()
        allowed = [method for method in named if method in self._decisions.method_variables]
        self._ignored.update(f"{name}: {method}" for method in named if method not in allowed)
        return allowed

    def _note_ignored(self) -> None:
        if self._ignored:
            keys = ", ".join(sorted(self._ignored))
            text = f"The service sets these keys of the profile itself, or does not offer them: {keys}."
            emitter.emit(Message(time=time.time(), level="WARNING", text=text))


def _complete_for_cluster(args: Any, parser: Any, cluster: ClusterDecisions) -> None:
    """Set what neither the job nor a profile sets."""
    if args.default_resources is None:
        named = [f"{name}={value}" for name, value in cluster.default_resources.items()]
        # As the option itself is parsed, which can have expressions.
        parse = snakemake.resources.Resources.parser_factory(defaults="full", allow_expressions=True)
        args.default_resources = parse(named)
    if cluster.latency_wait is not None and args.latency_wait == parser.get_default("latency_wait"):
        args.latency_wait = cluster.latency_wait


def _as_list(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else str(value).split()


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _deployed(args: Any) -> set[str]:
    """The software deployment methods of a parsed command line."""
    short = {method for key, method in _METHODS.items() if getattr(args, key.replace("-", "_"), False)}
    return short | {str(method) for method in args.software_deployment_method or ()}
