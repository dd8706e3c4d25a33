"""Starts a service, does what `SECTIONS` says with curl, and writes down what was answered."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console

from deployments.local import PROJECT, LocalStack
from tests.conftest import local_settings
from tests.exchanges.sections import SECTIONS, Exchange
from tests.support import WORKFLOWS

GUIDE = PROJECT / "api" / "EXCHANGES.md"
SHOWN_AS = "localhost:8000"
_LONGEST_LINE = 360
_MOST_LINES = 14
_INTRODUCTION = """# Every operation, with a real exchange

Made by `python -m tests.exchanges` against a service of its own; `…` is where something was left out. \
What each may be asked, and all that it may answer, is in the service's own documentation under `/docs`.

`$BUNDLE`, `$JOB` and the like are ids that an answer before had. `variants` is `flows/examples/variants`, \
`sleeper` is `tests/workflows/sleeper`, and `$PWD` is a workflow root.
"""


class Shell:
    """Runs commands one after the other; a variable that one sets is there for the next."""

    def __init__(self, directory: Path, address: str) -> None:
        self._directory = directory
        self._address = address
        self._variables: dict[str, str] = {}

    def run(self, exchange: Exchange) -> str:
        """What it printed. Raises `CalledProcessError` when it fails."""
        command = exchange.command.replace(SHOWN_AS, self._address)
        output = subprocess.run(
            ["bash", "-c", command.replace("curl ", "curl -sS ")],
            cwd=self._directory,
            env={**os.environ, **self._variables},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.replace(self._address, SHOWN_AS)
        if exchange.keeps:
            name, code = exchange.keeps
            program = ["python3", "-c", f"import json, sys; answer = json.load(sys.stdin); print({code})"]
            body = output[output.index("{") :]
            kept = subprocess.run(program, input=body, stdout=subprocess.PIPE, text=True, check=True)
            self._variables[name] = kept.stdout.strip()
        return output


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        settings = local_settings(directory / "home", [WORKFLOWS, PROJECT / "flows" / "examples"])
        for workflow in (WORKFLOWS / "sleeper", PROJECT / "flows" / "examples" / "variants"):
            (directory / workflow.name).symlink_to(workflow)
        with LocalStack(settings, Console(stderr=True).print):
            shell = Shell(directory, f"127.0.0.1:{settings.api_port}")
            parts = [_INTRODUCTION]
            for title, exchanges in SECTIONS.items():
                parts += [f"## {title}\n", *(_shown(exchange, shell.run(exchange)) for exchange in exchanges)]
    GUIDE.write_text("\n".join(parts).replace(name, "/srv"))


def _shown(exchange: Exchange, output: str) -> str:
    lines = [
        line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
        for line in output.replace("\r", "").rstrip().split("\n")
    ]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], "…"]
    text = f"{exchange.text}\n\n" if exchange.text else ""
    return f"{text}```console\n$ {exchange.command}\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    main()
