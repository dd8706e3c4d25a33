"""Run every comparison, or those named: `python -m tests.benchmarks [NAME …]`.

Writes `build/bench.json` and `build/bench.svg`.
"""

import argparse
import os
import platform
import signal
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx
from rich.console import Console

from deployments.local import PROJECT, LocalStack
from tests.benchmarks import environments, requests, workflows
from tests.benchmarks.plot import plot
from tests.benchmarks.rows import Report
from tests.conftest import local_settings
from tests.support import WORKFLOWS, JobsClient

NAMES = ("workflows", "environments", "scale", "submits", "artifacts", "reads", "lists", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all by default")
    parser.add_argument("--trials", type=int, default=5, help="of each short comparison")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a bare snakemake may take")
    arguments = parser.parse_args()
    names = arguments.names or NAMES
    # Started in the background, SIGINT would be ignored by Prefect's worker too, which then never ends.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console = Console()
    with tempfile.TemporaryDirectory() as directory:
        roots = Path(directory)
        settings = local_settings(roots / "home", [WORKFLOWS, roots])
        settings = settings.model_copy(update={"concurrent_jobs": 25})
        os.environ["PREFECT_HOME"] = str(roots / "prefect")
        with (
            LocalStack(settings, console.print) as stack,
            httpx.Client(base_url=settings.api_url, timeout=60) as http,
        ):
            report = Report(PROJECT / "build" / "bench.json", console, _about())
            try:
                _compare(names, report, stack, JobsClient(http), roots, arguments)
            finally:  # also what was measured before something failed
                console.print(report.table())
                plot(report, PROJECT / "build" / "bench.svg")


def _compare(
    names: list[str] | tuple[str, ...],
    report: Report,
    stack: LocalStack,
    jobs: JobsClient,
    roots: Path,
    arguments: argparse.Namespace,
) -> None:
    if "workflows" in names:
        workflows.one_rule(report, jobs, roots, arguments.trials)
        workflows.first_rule(report, stack, jobs, roots, min(arguments.trials, 3))
        workflows.small_jobs(report, stack, jobs)
    if "environments" in names:
        environments.compare(report, stack, jobs, roots, min(arguments.trials, 3))
    if "reads" in names:
        requests.reads(report, stack, jobs)
    if "submits" in names:
        requests.submits(report, stack)
        requests.submits_beside_sapporo(report, stack)
    if "artifacts" in names:
        requests.artifacts(report, stack)
    if "lists" in names:
        requests.submits(report, stack) if "submits" not in names else None
        requests.lists(report, stack)
    if "scale" in names:
        workflows.many_rules(report, stack, jobs, {1_000: 0.6, 5_000: 0.3}, arguments.limit)
    if "memory" in names:
        requests.memory(report, stack)


def _about() -> dict[str, str]:
    packages = ("prefect", "snakemake", "fastapi")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        **{name: version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
