"""`python -m tests.prove`: every fault many times, and a table of what was wrong."""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from deployments.local import PROJECT, LocalStack
from deployments.settings import LocalSettings
from tests.conftest import ENVIRONMENTS, local_settings
from tests.prove.faults import FAULTS, NOTHING, Fault
from tests.prove.report import table
from tests.prove.trials import Trial, run
from tests.support import WORKFLOWS

_DISK = "size=700m"
_AT_ONCE = 8


def main() -> int:
    arguments = _parser().parse_args()
    seed = arguments.seed or int(time.time())
    random.seed(seed)
    console = Console()
    chosen = [fault for fault in FAULTS if not arguments.faults or fault.name in arguments.faults]
    trials: list[Trial] = []
    os.environ["JOBS_ENVIRONMENTS_DIRECTORY"] = str(ENVIRONMENTS)
    with _home() as (home, has_own_disk):
        settings = local_settings(home, [WORKFLOWS]).model_copy(update={"concurrent_jobs": _AT_ONCE})
        possible = [fault for fault in chosen if has_own_disk or not fault.needs_own_disk]
        for is_larger in (False, True):
            faults = [fault for fault in possible if fault.needs_larger_server is is_larger]
            sized = settings.model_copy(update={"prefect_workers": 2 if is_larger else 1})
            for trial in _trials(faults, sized, arguments, console):
                trials.append(trial)
                _write(trials, chosen, seed, arguments.jobs)
    console.print(_write(trials, chosen, seed, arguments.jobs), markup=False, soft_wrap=True)
    return int(any(trial.wrong for trial in trials))


def _trials(
    faults: list[Fault], settings: LocalSettings, arguments: argparse.Namespace, console: Console
) -> Iterator[Trial]:
    """Each of these faults as often as wanted, on one stack."""
    if not faults:
        return
    with LocalStack(settings, lambda _: None) as stack:
        own_seconds = max(arguments.seconds, 1.5 * run(NOTHING, stack, arguments.jobs, 300).seconds)
        for fault in faults:
            for number in range(arguments.repeat):
                trial = run(fault, stack, arguments.jobs, own_seconds)
                console.print(f"{fault.name} {number + 1}/{arguments.repeat}: {_said(trial)}", markup=False)
                yield trial


def _said(trial: Trial) -> str:
    if not trial.was_inflicted:
        return "there was nothing to kill"
    said = f"{trial.seconds:.1f} s, {trial.failed} resumed"
    return f"{said} WRONG {trial.wrong}" if trial.wrong else said


def _write(trials: list[Trial], faults: list[Fault], seed: int, jobs: int) -> str:
    text = f"{datetime.now(UTC):%d %B %Y}, {jobs} jobs at a time, seed {seed}.\n\n{table(trials, faults)}\n"
    file = PROJECT / "build" / "prove.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return text


@contextmanager
def _home() -> Iterator[tuple[Path, bool]]:
    """A home directory, and whether it has a small disk of its own, which takes root."""
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        home.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", _DISK, "prove", str(home)]
        has_own_disk = (
            os.geteuid() == 0 and not subprocess.run(command, capture_output=True, check=False).returncode
        )
        try:
            yield home, has_own_disk
        finally:
            if has_own_disk:
                subprocess.run(["umount", "--lazy", str(home)], check=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.prove", description=__doc__)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="names of faults; all by default")
    parser.add_argument("--repeat", type=int, default=20, help="of each fault (default: 20)")
    parser.add_argument("--jobs", type=int, default=12, help="that run meanwhile (default: 12)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=25,
        help="jobs take without a fault, at least (it is measured)",
    )
    parser.add_argument("--seed", type=int, help="of the random moments; the time by default")
    return parser


if __name__ == "__main__":
    sys.exit(main())
