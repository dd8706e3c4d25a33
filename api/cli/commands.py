"""`prefect-snakemake submit|status|list|tasks|logs|cancel|resume|outputs|usage|compare|delete|workflows`."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, NoReturn
from uuid import uuid4

import typer
import yaml
from rich.markup import escape

from api.cli.output import (
    SafeConsole,
    Watch,
    console,
    jobs_table,
    log_line,
    plan_table,
    print_json,
    rules_table,
    show_job,
    status_text,
)
from api.cli.parsing import pairs, storage_of, texts_of, values_of
from api.cli.service import FINAL, Json, Service, ServiceError, output_path
from api.cli.snakemake_options import CommandWithOptions, given_options
from api.cli.sources import overrides, source_of
from api.cli.usage_output import profile_of, show_comparison, show_usage
from api.cli.workflow_commands import workflows

app = typer.Typer(
    help="Run Snakemake workflows on a prefect-snakemake service. Set JOBS_URL to its address "
    "(default: http://127.0.0.1:8000) and JOBS_TOKEN to your token.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(workflows, name="workflows")

JOB_FAILED = 2
"""Exit code if the watched job did not complete. 1 means that the command itself failed."""

JobId = Annotated[str, typer.Argument(help="The id of the job.", metavar="JOB")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Watching = Annotated[bool, typer.Option("--watch", "-w", help="Show progress until the job has ended.")]


def main() -> NoReturn:
    try:
        app()
    except ServiceError as error:
        SafeConsole(stderr=True).print(
            f"[red]Error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


@app.command(cls=CommandWithOptions)
def submit(
    context: typer.Context,
    workflow: Annotated[
        str | None,
        typer.Argument(
            help="A directory to upload, the https address of a git repository, the name of a bundle "
            "(sha256:…), or a registered workflow (NAME or NAME@VERSION).",
        ),
    ] = None,
    server_path: Annotated[
        bool, typer.Option("--server-path", help="WORKFLOW is a directory on the server; upload nothing.")
    ] = False,
    ref: Annotated[str | None, typer.Option(help="Branch, tag or commit of the git repository.")] = None,
    subdir: Annotated[
        str | None, typer.Option(help="Directory of the workflow in the repository or bundle.")
    ] = None,
    snakefile: Annotated[str | None, typer.Option(help="Path of the Snakefile in the workflow.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Rule or file to produce. May be repeated.")
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(help="Configuration value, as YAML. May be repeated.", metavar="KEY=VALUE"),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON file that overrides the configuration of the workflow.", exists=True),
    ] = None,
    workdir: Annotated[
        str | None, typer.Option(help="Working directory (Snakemake's --directory), in the workflow.")
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(help="Directory of the server to work in.", metavar="PATH", rich_help_panel="Data"),
    ] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Data of the server that the workflow finds at PLACE. May be repeated.",
            metavar="PLACE=PATH",
            rich_help_panel="Data",
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            help="Small file of this machine to put at PLACE in the workflow. May be repeated.",
            metavar="PLACE=FILE",
            rich_help_panel="Data",
        ),
    ] = None,
    default_storage: Annotated[
        str | None,
        typer.Option(
            help="Storage plugin and prefix for files without a storage of their own.",
            metavar="PROVIDER=PREFIX",
            rich_help_panel="Data",
        ),
    ] = None,
    storage_setting: Annotated[
        list[str] | None,
        typer.Option(
            help="Setting of the storage plugin, such as endpoint_url=…. May be repeated.",
            metavar="NAME=VALUE",
            rich_help_panel="Data",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="Environment variable of the rules. May be repeated.",
            metavar="NAME=VALUE",
            rich_help_panel="Environment",
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            help="Environment variable whose value is in a Secret block of Prefect. May be repeated.",
            metavar="NAME=BLOCK",
            rich_help_panel="Environment",
        ),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(help="Environment that the operator declares.", rich_help_panel="Environment"),
    ] = None,
    package: Annotated[
        list[str] | None,
        typer.Option(
            help="Python package for the job's own environment, such as 'pandas >= 2' or "
            "'snakemake == 9.14.0'. May be repeated.",
            metavar="REQUIREMENT",
            rich_help_panel="Environment",
        ),
    ] = None,
    requirements: Annotated[
        str | None,
        typer.Option(
            help="Requirements file in the workflow, for the job's own environment.",
            metavar="FILE",
            rich_help_panel="Environment",
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            help="Python of the job's own environment.", metavar="VERSION", rich_help_panel="Environment"
        ),
    ] = None,
    software: Annotated[
        list[str] | None,
        typer.Option(
            help="How to deploy the software that rules declare: conda, apptainer or env-modules. "
            "May be repeated.",
            metavar="METHOD",
            rich_help_panel="Environment",
        ),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(min=1, help="Cores that rule jobs may use at once; 1 when absent."),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(help="Resource, such as mem_mb=8000. May be repeated.", metavar="NAME=NUMBER"),
    ] = None,
    spot: Annotated[
        bool, typer.Option("--spot", help="Run on a Spot machine, which may be reclaimed at any time.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which the job fails.", metavar="SECONDS")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    group: Annotated[str | None, typer.Option(help="Group that runs the job.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Tag of the job. May be repeated.", metavar="KEY=VALUE")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Only plan, and print what would run by rule and reason.")
    ] = False,
    mock: Annotated[
        bool, typer.Option("--mock", help="Run no workflow, but rule jobs that only wait.")
    ] = False,
    watch: Watching = False,
    as_json: AsJson = False,
) -> None:
    """Submit a workflow, and print the id of the job."""
    service = Service.from_environment()
    if workflow is None and directory is None and not mock:
        raise ServiceError(
            "The argument WORKFLOW is missing. Give a directory, a git address, a bundle or a registered "
            "workflow; or use --directory or --mock."
        )
    spec: Json = {"engine": "mock"} if mock else {}
    if workflow is not None:
        spec["workflow"] = source_of(service, workflow, server_path, ref, subdir)
    own = {"name": environment, "packages": package, "file": requirements, "python": python}
    settings: Json = {
        "snakefile": snakefile,
        "workdir": workdir,
        "directory": {"path": directory} if directory else None,
        "targets": target,
        "inputs": {place: {"path": path} for place, path in pairs(input_).items()},
        "files": texts_of(file),
        "config": overrides(config, config_file),
        "environment": {key: part for key, part in own.items() if part},
        "software": software,
        "env": pairs(env),
        "secrets": pairs(secret),
        "default_storage": storage_of(default_storage, storage_setting),
        "cores": cores if not mock else None,
        "resources": values_of(resource),
        "timeout_seconds": timeout,
        "options": given_options(context),
        "dry_run": dry_run,
        "name": name,
        "group": group,
        "spot": spot,
        "tags": pairs(tag),
    }
    spec |= {key: value for key, value in settings.items() if value}
    job = service.post("/jobs", spec, {"Idempotency-Key": str(uuid4())})
    if dry_run:
        _print_plan(service, job, as_json=as_json)
    else:
        _print_job(service, job, watch=watch, as_json=as_json)


@app.command()
def status(job: JobId, watch: Watching = False, as_json: AsJson = False) -> None:
    """Show the status of a job, by rule."""
    service = Service.from_environment()
    found = service.get(f"/jobs/{job}")
    if watch and found["status"] not in FINAL:
        found = _watched(service, job, as_json=as_json)
    if as_json:
        print_json(found)
    else:
        show_job(console, found)
        console.print(rules_table(service.items(f"/jobs/{job}/tasks")))
    if watch:
        _exit_by(found)


@app.command(name="list")
def list_jobs(
    status: Annotated[
        list[str] | None, typer.Option(help="Only jobs with this status. May be repeated.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Only jobs of this group.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs with this name.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only jobs with this tag, KEY=VALUE. May be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs to list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    tags = [f"{key}:{value}" for key, value in pairs(tag).items()]
    service = Service.from_environment()
    jobs = list(service.items("/jobs", limit, status=status, group=group, name=name, tag=tags))
    print_json(jobs) if as_json else console.print(jobs_table(jobs))


@app.command()
def tasks(
    job: JobId,
    status: Annotated[
        list[str] | None, typer.Option(help="Only rule jobs with this status. May be repeated.")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only rule jobs of this rule.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the rule jobs of a job."""
    found = Service.from_environment().items(f"/jobs/{job}/tasks", status=status, rule=rule)
    if as_json:
        print_json(list(found))
        return
    for task in found:
        console.print(f"{task['id']}  {status_text(task['status'])}  {escape(task['name'])}", highlight=False)


@app.command()
def logs(
    job: JobId,
    task: Annotated[str | None, typer.Option(help="Only the log of this rule job, by its id.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the job has ended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the log of a job."""
    service = Service.from_environment()
    found: Iterable[Json]
    if follow:
        lines = (event.data for event in service.events(job) if event.kind == "log")
        found = (line for line in lines if task is None or line["task_id"] == task)
    else:
        found = service.items(f"/jobs/{job}/tasks/{task}/logs" if task else f"/jobs/{job}/logs")
    for line in found:
        text = json.dumps(line) if as_json else log_line(line)
        console.print(text, highlight=False, markup=False, soft_wrap=True)


@app.command()
def cancel(job: JobId, as_json: AsJson = False) -> None:
    """Cancel a job."""
    service = Service.from_environment()
    _print_job(service, service.post(f"/jobs/{job}/cancel"), watch=False, as_json=as_json)


@app.command(cls=CommandWithOptions)
def resume(
    context: typer.Context,
    job: JobId,
    workflow: Annotated[
        str | None,
        typer.Option(help="Go on with this directory, git address or bundle instead.", metavar="WORKFLOW"),
    ] = None,
    ref: Annotated[str | None, typer.Option(help="Another branch, tag or commit.")] = None,
    target: Annotated[list[str] | None, typer.Option(help="Other rule or file. May be repeated.")] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(help="Configuration value to change, as YAML. May be repeated.", metavar="KEY=VALUE"),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option(help="YAML or JSON file of configuration to change.", exists=True)
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(help="Small file to put at PLACE. May be repeated.", metavar="PLACE=FILE"),
    ] = None,
    package: Annotated[
        list[str] | None,
        typer.Option(help="Package for another environment. May be repeated.", metavar="REQUIREMENT"),
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Another number of cores.")] = None,
    watch: Watching = False,
    as_json: AsJson = False,
) -> None:
    """Run a job that has ended on, with changes or without, and print the id of the new job."""
    service = Service.from_environment()
    source: Json = {}
    if workflow is not None:
        source = dict.fromkeys(("path", "git", "bundle", "name", "version", "ref", "subdir"))
        source |= source_of(service, workflow, server_path=False, ref=None, subdir=None)
    if ref is not None:
        source["ref"] = ref
    changes: Json = {
        "workflow": source,
        "targets": target,
        "config": overrides(config, config_file),
        "files": texts_of(file),
        "environment": {"packages": package} if package else None,
        "cores": cores,
        "options": given_options(context),
    }
    changes = {key: value for key, value in changes.items() if value}
    _print_job(service, service.post(f"/jobs/{job}/resume", changes), watch=watch, as_json=as_json)


@app.command()
def outputs(
    job: JobId,
    path: Annotated[list[str] | None, typer.Argument(help="Only these outputs.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Files of this kind: output, report, log or benchmark. May be repeated."),
    ] = None,
    download: Annotated[Path | None, typer.Option(help="Download the outputs into this directory.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the outputs of a job or its logs, or download them."""
    service = Service.from_environment()
    listed = service.items(f"/jobs/{job}/outputs", kind=kind)
    found = [item for item in listed if not path or item["path"] in path]
    missing = sorted(set(path or ()) - {item["path"] for item in found})
    if missing:
        raise ServiceError(f"The job {job} has no output {', '.join(missing)}.")
    for item in found:
        if download is not None:
            service.download(output_path(job, item["path"]), _place_in(download, item["path"]))
        if not as_json:
            console.print(f"{item['size_bytes']:>12,}  {item['path']}", highlight=False, markup=False)
    if as_json:
        print_json(found)


def _place_in(directory: Path, path: str) -> Path:
    """Checks the path, because an untrusted service may send any."""
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts:
        raise ServiceError(f"The output '{path}' is outside {directory}; it was not downloaded.")
    return directory / place


@app.command()
def usage(
    job: JobId,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print a Snakemake profile that would have been enough.")
    ] = False,
    margin: Annotated[float, typer.Option(min=0, help="How much more to suggest than was taken.")] = 0.2,
    as_json: AsJson = False,
) -> None:
    """Show what a job took by rule, and what would have been enough."""
    found = Service.from_environment().get(f"/jobs/{job}/usage", margin=margin)
    if as_json:
        print_json(found)
    elif profile:
        sys.stdout.write(yaml.safe_dump(profile_of(found["rules"]), sort_keys=False))
    else:
        show_usage(console, found)


@app.command()
def compare(job: JobId, other: JobId, as_json: AsJson = False) -> None:
    """Compare two jobs: what was asked for, versions, rules and outputs."""
    found = Service.from_environment().get(f"/jobs/{job}/comparison/{other}")
    print_json(found) if as_json else show_comparison(console, found)


@app.command()
def delete(job: JobId) -> None:
    """Remove a job that has ended, with all its files."""
    Service.from_environment().delete(f"/jobs/{job}")


def _print_job(service: Service, job: Json, *, watch: bool, as_json: bool) -> None:
    """Prints a job, and with `watch` its progress."""
    if not watch:
        print_json(job) if as_json else console.print(job["id"], highlight=False)
        return
    if not as_json:
        console.print(f"{job['id']}  {service.url}{job['links']['self']}", highlight=False, soft_wrap=True)
    job = _watched(service, job["id"], as_json=as_json)
    print_json(job) if as_json else show_job(console, job)
    _exit_by(job)


def _watched(service: Service, job_id: str, *, as_json: bool) -> Json:
    """The job when it has ended. With JSON, progress goes to stderr."""
    return Watch(SafeConsole(stderr=True) if as_json else console).follow(service.events(job_id))


def _exit_by(job: Json) -> None:
    if job["status"] != "completed":
        raise typer.Exit(JOB_FAILED)


def _print_plan(service: Service, job: Json, *, as_json: bool) -> None:
    """Waits for a dry run, and prints what would run."""
    job = _watched(service, job["id"], as_json=True)
    tasks = list(service.items(f"/jobs/{job['id']}/tasks"))
    if as_json:
        print_json({"job": job, "tasks": tasks})
    elif job["status"] == "completed":
        console.print(plan_table(tasks))
    else:
        show_job(console, job)
    _exit_by(job)
