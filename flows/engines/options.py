"""The options of a job as arguments of `snakemake`."""

from collections.abc import Iterator, Mapping

from flows.contract.options import DEFAULT_WORKFLOW_PROFILE, Options

_PASSED_ELSEWHERE = frozenset({"configfiles", "profile", "workflow_profile", "report", "report_stylesheet"})


def option_arguments(options: Options) -> list[str]:
    """An argument for each option that the job sets."""
    return [
        argument
        for name in type(options).model_fields
        if name not in _PASSED_ELSEWHERE
        for argument in _arguments(f"--{name.replace('_', '-')}", getattr(options, name))
    ]


def switched_off(options: Options) -> list[str]:
    """Options that the job sets to false: Snakemake can't override a profile with that."""
    return [
        name.replace("_", "-") for name in sorted(options.model_fields_set) if getattr(options, name) is False
    ]


def profile_arguments(options: Options, offered: Mapping[str, str]) -> list[str]:
    """The arguments for profiles; `offered` are those of the operator: paths by name."""
    arguments = []
    if options.profile:
        arguments += ["--profile", *(offered.get(name, name) for name in options.profile)]
    if options.workflow_profile is None:
        arguments.append("--workflow-profile=none")
    elif options.workflow_profile != DEFAULT_WORKFLOW_PROFILE:
        arguments.append(f"--workflow-profile={options.workflow_profile}")
    return arguments


def _arguments(option: str, value: object) -> Iterator[str]:
    match value:
        case None | False:
            return
        case tuple() | dict() if not value:
            return
        case True:
            yield option
        case tuple():
            yield option
            yield from map(str, value)
        case dict():
            yield option
            yield from _pairs(value)
        case _:
            yield f"{option}={value}"


def _pairs(values: Mapping[str, object]) -> Iterator[str]:
    """`key=value`, and `outer:key=value` for a mapping of mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from (f"{key}:{pair}" for pair in _pairs(value))
        else:
            yield f"{key}={value}"
