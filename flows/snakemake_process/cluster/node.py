"""Runs on a node in the place of `python -m snakemake`: the same Snakemake, with less around it.

    python …/node.py RECORDS -m snakemake ARGUMENTS

Of the executor plugins, only those that the command names are imported: the one for SLURM brings pandas,
and asks the controller for its configuration, at each start.
"""

import os
import pkgutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

_PREFIX = "snakemake_executor_plugin_"
_MODULE_OPTION = 2
"""`-m snakemake`."""


def main() -> None:
    """Run the command line of this process."""
    here = Path(__file__).resolve()
    plugins, runtime = here.parents[1] / "plugins", here.parents[3]
    sys.path[:1] = [str(plugins), str(runtime)]  # instead of this file's directory
    from flows.snakemake_process.cluster.records import DIRECTORY_VARIABLE  # noqa: PLC0415 - needs the path

    os.environ[DIRECTORY_VARIABLE] = sys.argv[1]
    arguments = sys.argv[2 + _MODULE_OPTION :]
    _import_only({"prefect", *_values_of("--executor", arguments)})
    from snakemake.cli import main as snakemake  # noqa: PLC0415 - finds the plugins

    sys.argv = ["snakemake", *arguments]
    snakemake()


def _values_of(option: str, arguments: list[str]) -> set[str]:
    return {value for name, value in pairwise(arguments) if name == option}


def _import_only(executors: set[str]) -> None:
    """Hide the other executor plugins from Snakemake, which imports all that it finds."""
    plain = pkgutil.iter_modules

    def needed(*args: Any, **kwargs: Any) -> Iterator[pkgutil.ModuleInfo]:
        for module in plain(*args, **kwargs):
            name = module.name.removeprefix(_PREFIX).replace("_", "-")
            if not module.name.startswith(_PREFIX) or name in executors:
                yield module

    pkgutil.iter_modules = needed


if __name__ == "__main__":
    main()
