"""Runs one `snakemake` command in this process, with our plugins and a working SIGTERM handler.

Each execution needs its own process: a second workflow in the same process would see the modules,
environment and signal handlers of the first.
"""

import contextlib
import importlib
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from flows.snakemake_process import leaving, printing
from flows.snakemake_process.decisions import Decisions
from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import Message

_PLUGINS = str(Path(__file__).with_name("plugins"))

_PRELOADED = (
    "requests",  # imported, with smart_open, when the first Snakefile is parsed
    "smart_open",
    "snakemake.api",
    "snakemake.benchmark",
    "snakemake.cli",
    "snakemake.dag",
    "snakemake.executors.local",
    "snakemake.parser",
    "snakemake.persistence",
    "snakemake.scheduling.greedy",
    "snakemake.scheduling.job_scheduler",
    "snakemake.script",
    "snakemake.sourcecache",
    "snakemake.workflow",
)
_PRELOADED_LATER = ("snakemake.report",)


def drive(argv: list[str], decisions: Mapping[str, Any], events: BinaryIO) -> NoReturn:
    """Run `snakemake ARGV`, and exit the process with its exit code.

    `decisions` are the fields of `flows.snakemake_process.decisions.Decisions`.
    """
    exit_code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        leaving.begin()
        sys.argv = ["snakemake", *argv]
        emitter.open(events)
        exit_code = _main(argv, decisions)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)  # noqa: T201 - as Python does
        exit_code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 - the boundary of the process
        traceback.print_exc()
    finally:
        leaving.leave(exit_code)


def preload() -> None:
    """Import what every execution needs, without running anything.

    A process forked after this starts Snakemake in 0.3 s instead of 3–4 s.
    """
    find_plugins()
    _import(_PRELOADED)
    # Finds and imports every plugin.
    importlib.import_module("snakemake.cli").get_argument_parser()


def preload_rest() -> None:
    """Import what only some executions need."""
    _import(_PRELOADED_LATER)


def find_plugins() -> None:
    """Make our plugins importable: Snakemake searches for them as top-level packages.

    They come first: the environment may have those of another version of this project.
    """
    if _PLUGINS not in sys.path:
        sys.path.insert(0, _PLUGINS)


def _import(modules: Iterable[str]) -> None:
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):  # not every version has all of them
            importlib.import_module(module)


def _main(argv: list[str], decisions: Mapping[str, Any]) -> int:
    find_plugins()
    # Importing Snakemake takes seconds, and the zygote that imports this module may not need it yet.
    from snakemake.cli import main  # noqa: PLC0415 - as above

    from flows.snakemake_process import capture, pretending, profiles, repairs  # noqa: PLC0415 - as above

    printing.install()
    capture.install()
    for note in repairs.apply():
        emitter.emit(Message(time=time.time(), level="INFO", text=note))
    pretending.install()
    decided = Decisions.from_fields(decisions)
    profiles.install(decided)
    if decided.cluster is not None:
        importlib.import_module("snakemake.cli").get_argument_parser()  # finds the plugins
        importlib.import_module("flows.snakemake_process.cluster.executor").install(decided.cluster)
    main(argv)
    return 0
