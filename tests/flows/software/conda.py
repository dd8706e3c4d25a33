"""A `conda` on py-rattler for what Snakemake calls of it: no conda comes from the registries.

Solving, downloading and linking are rattler's, the library below pixi: they are real. The command
line is this file's, as far as `snakemake.deployment.conda` uses it (`info --json`, `env create`,
`create`, activation). Conda's own command line is not tested by it.

    python conda.py --install DIRECTORY     writes DIRECTORY/bin/conda and DIRECTORY/bin/activate
"""

import argparse
import asyncio
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

VERSION = "26.7.1"
"""Snakemake wants at least 24.7.1."""

SLOW_VARIABLE = "TEST_CONDA_SECONDS"
"""Lets the making of an environment take longer, so that jobs meet."""

_ACTIVATE = """\
export CONDA_PREFIX="$1" CONDA_DEFAULT_ENV="$1" CONDA_SHLVL=1 PATH="$1/bin:$PATH"
for script in "$1"/etc/conda/activate.d/*.sh; do [ -r "$script" ] && . "$script"; done
"""


def install(directory: Path) -> Path:
    """The `bin` with the commands."""
    commands = directory / "bin"
    commands.mkdir(parents=True)
    conda = commands / "conda"
    conda.write_text(
        f'#!/bin/sh\nTEST_CONDA_ROOT={directory} exec {sys.executable} {Path(__file__).resolve()} "$@"\n'
    )
    conda.chmod(0o755)
    (commands / "activate").write_text(_ACTIVATE)
    return commands


def main(arguments: list[str]) -> None:
    match arguments:
        case ["--version"]:
            print(f"conda {VERSION}")  # noqa: T201 - what a command does
        case ["info", "--json"]:
            root = os.environ["TEST_CONDA_ROOT"]
            print(  # noqa: T201 - as above
                json.dumps({"conda_prefix": root, "platform": "linux-64", "conda_version": VERSION})
            )
        case ["config", "--get", "channel_priority", *_]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))  # noqa: T201 - as above
        case ["clean", *_]:
            pass
        case ["env", "create", *rest]:
            time.sleep(float(os.environ.get(SLOW_VARIABLE, "0")))
            asyncio.run(_create(_options(rest)))
        case _:
            sys.exit(f"conda: no such command: {' '.join(arguments)}")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("conda")
    for flag in ("--quiet", "--yes", "--no-default-packages"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--prefix", type=Path, required=True)
    return parser.parse_args(arguments)


async def _create(options: argparse.Namespace) -> None:
    import rattler  # noqa: PLC0415 - a second to import, and `--version` needs none of it
    import yaml  # noqa: PLC0415 - as above
    from rattler.exceptions import GatewayError, SolverError  # noqa: PLC0415 - as above
    from rattler.platform import Platform  # noqa: PLC0415 - as above

    wanted: dict[str, Any] = yaml.safe_load(options.file.read_text())
    channels = [channel for channel in wanted.get("channels", []) if channel != "nodefaults"]
    try:
        records = await rattler.solve(
            channels,
            [spec for spec in wanted["dependencies"] if isinstance(spec, str)],
            platforms=[Platform.current(), "noarch"],
            virtual_packages=rattler.VirtualPackage.detect(),
        )
    except (SolverError, GatewayError) as error:
        sys.exit(f"failed\n\n{type(error).__name__}: {error}")
    cache = Path(os.environ["CONDA_PKGS_DIRS"])
    cache = Path(os.environ["CONDA_PKGS_DIRS"])
    await rattler.install(records, options.prefix, cache_dir=cache, show_progress=False)


if __name__ == "__main__":
    code = 0
    try:
        main(sys.argv[1:])
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the boundary of the process
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # py-rattler crashes one exit of the interpreter in ten (0.26 to 0.28)
