"""`python -m deployments`: run the service on this machine, or deploy it to a Prefect server."""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from deployments.credentials import Credentials
from deployments.demo import Demo, DemoError
from deployments.ecs import ECS
from deployments.local import WORK_POOL, LocalStack
from deployments.processes import StackError
from deployments.settings import LocalSettings
from deployments.software import NotPrepared
from deployments.software import prepare as prepare_software
from flows.contract.environments import EnvironmentSettings, SoftwareSettings
from flows.contract.executors import ExecutorSettings
from flows.contract.spec import DEFAULT_GROUP, EnvironmentSpec, SoftwareMethod
from flows.environments.making import Environments
from flows.environments.software_cache import remove_unused_software
from flows.environments.uv import EnvironmentFailure

_CHECK_SECONDS = 0.2


def main() -> int:
    arguments = _parser().parse_args()
    # A shell that starts this in the background leaves SIGINT ignored. SIGTERM shuts down cleanly, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    options = vars(arguments)
    command: Callable[..., int] = options.pop("command")
    try:
        return command(LocalSettings(), console, **options)
    except (StackError, DemoError) as error:
        console.print(f"[red]Error:[/red] {error}", soft_wrap=True, highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130


def up(settings: LocalSettings, console: Console) -> int:
    """Start the stack, and run it until Ctrl-C. Parts that end are started again."""
    with LocalStack(settings, console.print) as stack:
        console.print(
            f"\nJobs API    {settings.api_url}/docs\nPrefect UI  {settings.prefect_url}\n"
            f"            It asks for the content of {_shown(stack.auth_file)}.\n"
            f"            The command `prefect` needs PREFECT_HOME={_shown(settings.home / 'prefect')}.\n"
            "Stop with Ctrl-C.\n",
            soft_wrap=True,
            highlight=False,
        )
        try:
            while True:
                stack.supervise()
                time.sleep(_CHECK_SECONDS)
        except KeyboardInterrupt:
            console.print("Stopping …")
    return 0


def demo(settings: LocalSettings, console: Console) -> int:
    """Start the stack, run the example pipeline, and stop the stack."""
    with LocalStack(settings, console.print):
        Demo(settings, console).run()
    return 0


def register(settings: LocalSettings, console: Console, work_pool: str) -> int:
    """Register prefect.yaml on the Prefect server at PREFECT_API_URL. Repeat it after changes."""
    _authenticate(settings)
    # They take seconds to import, and are only needed here.
    from deployments import executors, registration  # noqa: PLC0415 - as above

    wanted = registration.RegistrationSettings()
    groups = registration.groups_of(settings.prefect_file) | wanted.groups.keys()
    try:
        executors.check_executors(
            settings.home, groups, lambda line: console.print(f"  {line}", highlight=False)
        )
    except ValueError as error:
        console.print(f"[red]Error:[/red] {error}", soft_wrap=True, highlight=False)
        return 1
    api_url = os.environ.get("PREFECT_API_URL", f"{settings.prefect_url}/api")
    registration.register(
        {"PREFECT_API_URL": api_url},
        settings.prefect_file,
        work_pool,
        wanted.groups,
        wanted.concurrent_jobs,
    )
    console.print(f"Registered {settings.prefect_file} on {api_url}, in '{work_pool}'.", soft_wrap=True)
    return 0


def notify(
    settings: LocalSettings,
    console: Console,
    *,
    block: str,
    group: str | None,
    completed: bool,
    remove: bool,
) -> int:
    """Send a notification for each failed job, with the reason and what to do."""
    _authenticate(settings)
    os.environ.setdefault("PREFECT_API_URL", f"{settings.prefect_url}/api")
    from deployments import notifications  # noqa: PLC0415 - takes seconds to import, and is only needed here

    if remove:
        was_there = asyncio.run(notifications.stop_notifying(block, group))
        console.print("Removed." if was_there else "There was none.")
        return 0
    states = (*notifications.FAILURES, *([notifications.COMPLETED] if completed else []))
    try:
        name = asyncio.run(notifications.notify(block, group, states))
    except notifications.NoBlock as error:
        console.print(f"[red]Error:[/red] {error}", soft_wrap=True, highlight=False)
        return 1
    console.print(f"'{name}' sends a notification for each job that is {', '.join(states)}.", soft_wrap=True)
    return 0


def reconcile(settings: LocalSettings, console: Console, *, once: bool) -> int:
    """Watch for jobs that are stuck between Prefect and ECS, and end them with a reason."""
    from deployments import reconciler  # noqa: PLC0415 - takes seconds to import, and is only needed here

    reconciler.configure_logs()
    of_environment = reconciler.ReconcilerSettings()  # type: ignore[call-arg]  # from the environment
    asyncio.run(reconciler.run_reconciler(of_environment, once=once))
    return 0


def environments(settings: LocalSettings, console: Console, *, remove_unused: bool) -> int:
    """Create the environments that prefect.yaml declares, and those of its clusters: no job waits for one."""
    declared = EnvironmentSettings()
    makes = Environments(declared, settings.home, lambda line: console.print(f"  {line}", highlight=False))
    if remove_unused:
        removed = makes.remove_unused()
        console.print(f"Removed {len(removed)} environments.")
        return 0
    failures = 0
    plugins = {cluster.requirement for cluster in ExecutorSettings().executors_by_group.values()}
    wanted = {name: (EnvironmentSpec(name=name), ()) for name in declared.environments} | {
        plugin: (None, (plugin,)) for plugin in sorted(plugins)
    }
    for name, (spec, more) in wanted.items():
        try:
            environment = makes.get(makes.wanted(spec, more=more))
        except EnvironmentFailure as failure:
            console.print(f"[red]{name}:[/red] {failure}\n  {failure.resolution}", highlight=False)
            failures += 1
        else:
            record = environment.record
            console.print(f"{name}: Snakemake {record.snakemake}, Python {record.python}, {record.digest}")
    return int(failures > 0)


def software(
    settings: LocalSettings,
    console: Console,
    *,
    prepare: Path | None,
    group: str,
    method: list[SoftwareMethod] | None,
    environment: str | None,
    remove_unused: bool,
) -> int:
    """Create the conda environments and images of a workflow in advance, or remove unused ones."""
    declared = SoftwareSettings()
    if remove_unused:
        directory = declared.software_directory or settings.home / "software"
        removed = remove_unused_software(directory, declared.software_keep_days)
        console.print(f"Removed {len(removed)} conda environments. {' '.join(removed)}", highlight=False)
    if prepare is None:
        return 0
    named = EnvironmentSpec(name=environment) if environment else None
    methods = method or [SoftwareMethod.CONDA]
    try:
        prepare_software(
            prepare, group, methods, named, settings.home, lambda line: console.print(line, highlight=False)
        )
    except (NotPrepared, EnvironmentFailure) as error:
        console.print(f"[red]Error:[/red] {error}", soft_wrap=True, highlight=False)
        return 1
    console.print(f"The software of {prepare} is ready for the group '{group}'.", soft_wrap=True)
    return 0


def _authenticate(settings: LocalSettings) -> None:
    """Use the password of the stack on this machine, if there is one and no other is named."""
    auth_file = Credentials(settings.home).prefect_file
    if auth_file.exists():
        os.environ.setdefault("PREFECT_API_AUTH_STRING", auth_file.read_text().strip())


def _shown(path: Path) -> str:
    """Relative to the current directory, if it is below it."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(resolved)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deployments", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (up, demo, register, notify, environments, software, reconcile):
        subparser = commands.add_parser(command.__name__, help=command.__doc__)
        subparser.set_defaults(command=command)
        if command is register:
            subparser.add_argument(
                "--work-pool",
                choices=(WORK_POOL, ECS),
                default=WORK_POOL,
                help=f"where jobs run: as processes of our worker, or as ECS tasks (default: {WORK_POOL})",
            )
        if command is notify:
            subparser.add_argument("block", metavar="BLOCK", help="the block, such as slack-webhook/lab")
            subparser.add_argument("--group", help="only jobs of this group")
            subparser.add_argument("--completed", action="store_true", help="also for completed jobs")
            subparser.add_argument("--remove", action="store_true", help="instead, stop its notifications")
        if command is environments:
            subparser.add_argument(
                "--remove-unused",
                action="store_true",
                help="instead, remove environments that no job has used for JOBS_ENVIRONMENTS_KEEP_DAYS",
            )
        if command is software:
            subparser.add_argument(
                "--prepare", type=Path, metavar="WORKFLOW", help="directory of the workflow"
            )
            subparser.add_argument(
                "--group", default=DEFAULT_GROUP, help=f"group that runs it (default: {DEFAULT_GROUP})"
            )
            subparser.add_argument(
                "--method",
                action="append",
                type=SoftwareMethod,
                choices=list(SoftwareMethod),
                help="how rules declare the software; can be repeated (default: conda)",
            )
            subparser.add_argument("--environment", help="named environment that Snakemake runs in")
            subparser.add_argument(
                "--remove-unused",
                action="store_true",
                help="remove conda environments that no job has used for JOBS_SOFTWARE_KEEP_DAYS",
            )
        if command is reconcile:
            subparser.add_argument("--once", action="store_true", help="check once, and exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
