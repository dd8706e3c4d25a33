"""The demo: submits the example pipeline over REST, and shows the progress of each rule."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deployments.settings import LocalSettings

EXAMPLE = Path(__file__).parent.parent / "flows" / "examples" / "variants"
SUMMARY = "results/summary.md"
EXPECTED_OUTPUTS = ("results/variants.vcf.gz", "results/plot.png", "results/summary.json", SUMMARY)
TIMEOUT_SECONDS = 600.0
_POLL_SECONDS = 0.3
_FINAL = frozenset({"completed", "failed", "cancelled"})

Json = dict[str, Any]


class DemoError(Exception):
    """The demo job failed, or its outputs are missing."""


@dataclass
class Demo:
    """One run of the demo against a running stack."""

    settings: LocalSettings
    api: httpx.Client
    console: Console

    def run(self) -> None:
        """Raises `DemoError` unless the job completes with all its outputs."""
        job = self._submit()
        job = self._follow(job)
        tasks = sorted(_items(self.api, f"/jobs/{job['id']}/tasks"), key=_began)
        outputs = list(_items(self.api, f"/jobs/{job['id']}/outputs"))
        self.console.print(_rules_table(tasks))
        self._show_outputs(job, outputs)
        self._show_addresses(job)
        _require_success(job, outputs)
        summary = self.api.get(f"/jobs/{job['id']}/outputs/{SUMMARY}").raise_for_status().text
        self.console.print(Markdown(summary))

    def _submit(self) -> Json:
        body = {
            "name": "demo",
            "workflow": {"path": str(EXAMPLE)},
            "environment": {"file": "requirements.txt"},
            "cores": 2,
            "tags": {"example": "variants"},
        }
        response = self.api.post("/jobs", json=body)
        if response.is_error:
            problem = response.json()
            raise DemoError(f"{problem['detail']} {problem['resolution']}")
        job: Json = response.json()
        self.console.print(f"POST {self.settings.api_url}/jobs → {response.status_code}, job {job['id']}")
        return job

    def _follow(self, job: Json) -> Json:
        """Show progress until the job has ended: live on a terminal, else as plain lines."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        with _progress(self.console) as progress:
            bars: dict[str, Any] = {}
            shown: dict[str, tuple[int, int]] = {}
            while time.monotonic() < deadline:
                job = self.api.get(f"/jobs/{job['id']}").raise_for_status().json()
                tasks = list(_items(self.api, f"/jobs/{job['id']}/tasks"))
                for rule, (done, total) in _counts(tasks).items():
                    if rule not in bars:
                        bars[rule] = progress.add_task(rule, total=total)
                    progress.update(bars[rule], completed=done, total=total)
                    if not self.console.is_terminal and shown.get(rule) != (done, total) and done:
                        shown[rule] = (done, total)
                        self.console.print(f"  {rule}: {done} of {total}")
                if job["status"] in _FINAL:
                    return job
                time.sleep(_POLL_SECONDS)
        raise DemoError(f"job {job['id']} is still {job['status']} after {TIMEOUT_SECONDS:g} s")

    def _show_outputs(self, job: Json, outputs: list[Json]) -> None:
        self.console.print(f"\n{len(outputs)} outputs of job {job['id']}:")
        for output in outputs:
            self.console.print(f"  {output['path']}  ({output['size_bytes']:,} bytes)", highlight=False)

    def _show_addresses(self, job: Json) -> None:
        self.console.print(
            "\nURLs (while a stack runs with this home directory: make up)\n"
            f"  API documentation  {self.settings.api_url}/docs\n"
            f"  this job           {self.settings.api_url}/jobs/{job['id']}\n"
            f"  in the Prefect UI  {job['links']['prefect']}\n",
            soft_wrap=True,
        )


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _items(api: httpx.Client, path: str) -> Iterator[Json]:
    """Every item of a paginated list."""
    cursor: str | None = None
    while True:
        page = api.get(path, params={"cursor": cursor} if cursor else {}).raise_for_status().json()
        yield from page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _counts(tasks: list[Json]) -> dict[str, tuple[int, int]]:
    """Number of done and of all rule jobs, by rule."""
    total = Counter(task["rule"] for task in tasks)
    done = Counter(task["rule"] for task in tasks if task["status"] in ("completed", "skipped"))
    return {rule: (done[rule], total[rule]) for rule in total}


def _rules_table(tasks: list[Json]) -> Table:
    table = Table(title="Rules", title_justify="left")
    table.add_column("rule")
    table.add_column("rule jobs", justify="right")
    table.add_column("seconds", justify="right")
    table.add_column("state")
    for rule in dict.fromkeys(task["rule"] for task in tasks):
        of_rule = [task for task in tasks if task["rule"] == rule]
        states = Counter(task["status"] for task in of_rule)
        seconds = sum(_seconds(task) for task in of_rule)
        state = ", ".join(name if len(states) == 1 else f"{count} {name}" for name, count in states.items())
        table.add_row(rule, str(len(of_rule)), f"{seconds:.1f}", state)
    return table


def _began(task: Json) -> str:
    return task["started_at"] or ""


def _seconds(task: Json) -> float:
    if task["started_at"] is None or task["finished_at"] is None:
        return 0.0
    started, finished = (datetime.fromisoformat(task[key]) for key in ("started_at", "finished_at"))
    return (finished - started).total_seconds()


def _require_success(job: Json, outputs: list[Json]) -> None:
    if job["status"] != "completed":
        error = job["error"] or {}
        raise DemoError(
            f"job {job['id']} is {job['status']}: {error.get('message')}\n{error.get('resolution')}"
        )
    missing = set(EXPECTED_OUTPUTS) - {output["path"] for output in outputs}
    if missing:
        raise DemoError(f"job {job['id']} completed without its outputs {', '.join(sorted(missing))}")
