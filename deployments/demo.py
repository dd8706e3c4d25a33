"""The demo: runs the example pipeline by the command line, and shows each command and what it prints."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from deployments.settings import LocalSettings

EXAMPLE = Path(__file__).parent.parent / "flows" / "examples" / "variants"
SUMMARY = "results/summary.md"
EXPECTED_OUTPUTS = ("results/variants.vcf.gz", "results/plot.png", "results/summary.json", SUMMARY)
TIMEOUT_SECONDS = 900.0
_PROGRAM = Path(sys.executable).with_name("prefect-snakemake")

Json = dict[str, Any]


class DemoError(Exception):
    """The demo job failed, or its outputs are missing."""


@dataclass
class Demo:
    """One run of the demo against a running stack."""

    settings: LocalSettings
    console: Console

    def run(self) -> None:
        """Raises `DemoError` unless the job completes with all its outputs."""
        self._show(
            *("submit", str(EXAMPLE), "--server-path", "--requirements", "requirements.txt"),
            *("--cores", "2", "--name", "demo", "--tag", "example=variants", "--watch"),
        )
        job = self._read("list", "--name", "demo", "--limit", "1")[0]
        self._show("status", job["id"])
        self._show("outputs", job["id"])
        missing = set(EXPECTED_OUTPUTS) - {output["path"] for output in self._read("outputs", job["id"])}
        if missing:
            raise DemoError(f"job {job['id']} completed without its outputs {', '.join(sorted(missing))}")
        self._show_addresses(job)
        with tempfile.TemporaryDirectory() as directory:
            self._read("outputs", job["id"], SUMMARY, "--download", directory)
            self.console.print(Markdown((Path(directory) / SUMMARY).read_text()))

    def _show(self, *arguments: str) -> None:
        """Run a command, and let it write to the terminal."""
        command = shlex.join([_PROGRAM.name, *arguments]).replace(f"{Path.cwd()}/", "")
        self.console.print(f"\n[bold]$ {command}[/bold]", highlight=False, soft_wrap=True)
        if self._run(*arguments).returncode:
            raise DemoError(f"{command} failed; the lines above say why")

    def _read(self, *arguments: str) -> list[Json]:
        """What a command prints as JSON."""
        result = self._run(*arguments, "--json", stdout=subprocess.PIPE)
        if result.returncode:
            raise DemoError(f"{_PROGRAM.name} {arguments[0]} failed; the lines above say why")
        found: list[Json] = json.loads(result.stdout)
        return found

    def _run(self, *arguments: str, stdout: int | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [_PROGRAM, *arguments],
            env={**os.environ, "JOBS_URL": self.settings.api_url},
            stdout=stdout,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    def _show_addresses(self, job: Json) -> None:
        self.console.print(
            "\nURLs (while a stack runs with this home directory: make up)\n"
            f"  API documentation  {self.settings.api_url}/docs\n"
            f"  this job           {self.settings.api_url}/jobs/{job['id']}\n"
            f"  in the Prefect UI  {job['links']['prefect']}\n",
            soft_wrap=True,
        )
