"""`prefect-snakemake workflows schedule|schedules|pause|resume|unschedule`."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.output import console, print_json, schedules_table
from api.cli.parsing import pairs, texts_of
from api.cli.service import Json, Service, ServiceError
from api.cli.sources import overrides

Name = Annotated[str, typer.Argument(help="The name of the workflow.", metavar="NAME")]
Slug = Annotated[str, typer.Argument(help="The name of the schedule.", metavar="SLUG")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_schedule_commands(workflows: typer.Typer) -> None:
    """Adds them to `prefect-snakemake workflows`."""
    for command in (schedule, schedules, pause, resume, unschedule):
        workflows.command()(command)


def schedule(
    name: Name,
    slug: Annotated[str, typer.Option(help="The name of the schedule, in the workflow.")] = "default",
    cron: Annotated[str | None, typer.Option(help="Cron expression, such as '0 6 * * 1'.")] = None,
    interval: Annotated[
        float | None, typer.Option(help="Time between two jobs.", metavar="SECONDS", min=1)
    ] = None,
    rrule: Annotated[
        str | None, typer.Option(help="Recurrence rule (RFC 5545), such as FREQ=WEEKLY;BYDAY=MO.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Time zone, such as Europe/Zurich.")] = "UTC",
    config: Annotated[
        list[str] | None,
        typer.Option(help="Configuration value, as YAML. May be repeated.", metavar="KEY=VALUE"),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option(help="YAML or JSON file of configuration.", exists=True)
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            help="Small file of this machine to put at PLACE in the workflow. May be repeated.",
            metavar="PLACE=FILE",
        ),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Data of the server that the workflow finds at PLACE. May be repeated.",
            metavar="PLACE=PATH",
        ),
    ] = None,
    directory: Annotated[
        str | None, typer.Option(help="Directory of the server to work in.", metavar="PATH")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Rule or file to make. May be repeated.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cores of each job.")] = None,
    only_if_changed: Annotated[
        bool, typer.Option("--only-if-changed", help="Make no job if nothing is to be done in --directory.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a workflow by a schedule. A schedule of the same name is replaced."""
    parameters: Json = {
        "config": overrides(config, config_file),
        "files": texts_of(file),
        "inputs": {place: {"path": path} for place, path in pairs(input_).items()},
        "directory": {"path": directory} if directory else None,
        "targets": target,
        "cores": cores,
    }
    when: Json = {"cron": cron, "interval_seconds": interval, "rrule": rrule}
    body: Json = {
        **{key: value for key, value in when.items() if value is not None},
        "timezone": timezone,
        "only_if_changed": only_if_changed,
        "parameters": {key: value for key, value in parameters.items() if value},
    }
    made = Service.from_environment().put(f"/workflows/{name}/schedules/{slug}", body)
    print_json(made) if as_json else console.print(schedules_table([made]))


def schedules(name: Name, as_json: AsJson = False) -> None:
    """List the schedules of a workflow."""
    found = Service.from_environment().get(f"/workflows/{name}/schedules")["items"]
    print_json(found) if as_json else console.print(schedules_table(found))


def pause(name: Name, slug: Slug) -> None:
    """Let a schedule make no jobs until it is resumed."""
    _set_active(name, slug, is_active=False)


def resume(name: Name, slug: Slug) -> None:
    """Let a paused schedule make jobs again."""
    _set_active(name, slug, is_active=True)


def unschedule(name: Name, slug: Slug) -> None:
    """Delete a schedule. Its jobs stay."""
    Service.from_environment().delete(f"/workflows/{name}/schedules/{slug}")


def _set_active(name: str, slug: str, *, is_active: bool) -> None:
    service = Service.from_environment()
    found = service.get(f"/workflows/{name}/schedules")["items"]
    known = next((each for each in found if each["slug"] == slug), None)
    if known is None:
        raise ServiceError(
            f"The workflow '{name}' has no schedule '{slug}'.\n"
            f"prefect-snakemake workflows schedules {name} lists them."
        )
    body = {key: value for key, value in known.items() if value is not None and key != "slug"}
    service.put(f"/workflows/{name}/schedules/{slug}", {**body, "active": is_active})
