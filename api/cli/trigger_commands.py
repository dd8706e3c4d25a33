"""`prefect-snakemake workflows trigger|triggers|untrigger`."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from api.cli.output import console, print_json, triggers_table
from api.cli.schedule_commands import AsJson, Name
from api.cli.service import Service, ServiceError


def add_trigger_commands(workflows: typer.Typer) -> None:
    """Adds them to `prefect-snakemake workflows`."""
    for command in (trigger, triggers, untrigger):
        workflows.command()(command)


def trigger(
    name: Name,
    file: Annotated[
        Path, typer.Argument(help="YAML file of triggers, by their names.", metavar="FILE", exists=True)
    ],
    as_json: AsJson = False,
) -> None:
    """Run a workflow when a job of another one has completed. Triggers of the same names are replaced."""
    declared = yaml.safe_load(file.read_text())
    if not isinstance(declared, dict) or not all(isinstance(each, dict) for each in declared.values()):
        raise ServiceError(f"{file} must map the names of triggers to what they are.")
    service = Service.from_environment()
    made = [service.put(f"/workflows/{name}/triggers/{slug}", body) for slug, body in declared.items()]
    print_json(made) if as_json else console.print(triggers_table(made))


def triggers(name: Name, as_json: AsJson = False) -> None:
    """List the triggers of a workflow."""
    found = Service.from_environment().get(f"/workflows/{name}/triggers")["items"]
    print_json(found) if as_json else console.print(triggers_table(found))


def untrigger(
    name: Name, slug: Annotated[str, typer.Argument(help="The name of the trigger.", metavar="SLUG")]
) -> None:
    """Delete a trigger. Its jobs stay."""
    Service.from_environment().delete(f"/workflows/{name}/triggers/{slug}")
