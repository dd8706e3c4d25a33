"""`prefect-snakemake workflows register|list|show|retire`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from api.cli.output import console, fields_table, print_json, versions_table, workflows_table
from api.cli.schedule_commands import add_schedule_commands
from api.cli.service import Json, Service, ServiceError
from api.cli.snakemake_options import CommandWithOptions, given_options
from api.cli.sources import overrides, source_of
from api.cli.trigger_commands import add_trigger_commands

_LONGEST_SECONDS = 3600.0

workflows = typer.Typer(
    help="Register workflows once, and run them by name.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(help="The name of the workflow.", metavar="NAME")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@workflows.command(cls=CommandWithOptions)
def register(
    context: typer.Context,
    name: Name,
    workflow: Annotated[
        str,
        typer.Argument(
            help="A directory to upload, the https address of a git repository, or the name of a bundle."
        ),
    ],
    version: Annotated[str, typer.Option("--version", help="The name of this version, such as 1.2.0.")],
    server_path: Annotated[
        bool, typer.Option("--server-path", help="WORKFLOW is a directory on the server; upload nothing.")
    ] = False,
    ref: Annotated[str | None, typer.Option(help="Branch, tag or commit of the git repository.")] = None,
    subdir: Annotated[str | None, typer.Option(help="Directory of the workflow in it.")] = None,
    snakefile: Annotated[str | None, typer.Option(help="Path of the Snakefile in the workflow.")] = None,
    workdir: Annotated[str | None, typer.Option(help="Working directory, in the workflow.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Rule or file to make. May be repeated.")] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(help="Configuration value, as YAML. May be repeated.", metavar="KEY=VALUE"),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option(help="YAML or JSON file of configuration.", exists=True)
    ] = None,
    environment: Annotated[str | None, typer.Option(help="Environment that the operator declares.")] = None,
    package: Annotated[
        list[str] | None,
        typer.Option(help="Python package of its environment. May be repeated.", metavar="REQUIREMENT"),
    ] = None,
    requirements: Annotated[
        str | None, typer.Option(help="Requirements file in the workflow.", metavar="FILE")
    ] = None,
    python: Annotated[str | None, typer.Option(help="Python of its environment.", metavar="VERSION")] = None,
    software: Annotated[
        list[str] | None,
        typer.Option(help="How to deploy the software of rules. May be repeated.", metavar="METHOD"),
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cores of jobs that name no other number.")] = None,
    group: Annotated[str | None, typer.Option(help="Group that runs its jobs.")] = None,
    default: Annotated[
        bool, typer.Option("--default/--not-default", help="Whether jobs that name no version run this one.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Register a version of a workflow. It never changes afterwards."""
    service = Service.from_environment()
    own = {"name": environment, "packages": package, "file": requirements, "python": python}
    fields: Json = {
        "workflow": source_of(service, workflow, server_path, ref, subdir),
        "snakefile": snakefile,
        "workdir": workdir,
        "targets": target,
        "config": overrides(config, config_file),
        "environment": {key: part for key, part in own.items() if part},
        "software": software,
        "cores": cores,
        "options": given_options(context),
        "group": group,
    }
    body = {key: value for key, value in fields.items() if value}
    made = _registered(service, f"/workflows/{name}/versions/{version}", body | {"default": default})
    if as_json:
        print_json(made)
    else:
        commit = f"  {made['commit']}" if made["commit"] else ""
        console.print(f"{made['name']}@{made['version']}{commit}", highlight=False)


@workflows.command(name="list")
def list_workflows(as_json: AsJson = False) -> None:
    """List the registered workflows."""
    found = Service.from_environment().get("/workflows")["items"]
    print_json(found) if as_json else console.print(workflows_table(found))


@workflows.command()
def show(
    name: Name,
    version: Annotated[
        str | None, typer.Option("--version", help="Show this version; the default one when absent.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the versions of a workflow, and the configuration that its jobs may set."""
    service = Service.from_environment()
    workflow = service.get(f"/workflows/{name}")
    shown = version or workflow["default_version"]
    details = service.get(f"/workflows/{name}/versions/{shown}") if shown else {}
    if as_json:
        print_json({**workflow, "details": details})
        return
    heading = f"{workflow['name']}  group {workflow['group']}  {workflow['prefect']}"
    console.print(escape(heading), highlight=False, soft_wrap=True)
    console.print(versions_table(workflow["versions"]))
    if details:
        console.print(f"\nConfiguration of {details['version']}:", highlight=False)
        console.print(fields_table(details["config_schema"]))


@workflows.command()
def retire(
    name: Name, version: Annotated[str, typer.Argument(help="The version.", metavar="VERSION")]
) -> None:
    """Refuse new jobs of a version. Its jobs stay."""
    Service.from_environment().post(f"/workflows/{name}/versions/{version}/retire")


add_schedule_commands(workflows)
add_trigger_commands(workflows)


def _registered(service: Service, path: str, body: Json) -> Json:
    """The version. Sends the request again while a job still reads the workflow."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    while True:
        made = service.put(path, body)
        if "registered_at" in made:
            return made
        console.print(f"The job {made['id']} reads the workflow …", highlight=False)
        if time.monotonic() > deadline:
            raise ServiceError(f"The job {made['id']} takes too long. Read its log, then register again.")
