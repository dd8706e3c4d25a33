"""Shows jobs on a terminal: tables, a progress bar, or plain lines if the output is not a terminal."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from api.cli.service import FINAL, Event, Json
from flows.contract.control_characters import shown

_COLOURS = {
    "completed": "green",
    "failed": "red",
    "running": "blue",
    "cancelled": "yellow",
    "cancelling": "yellow",
}
_DONE = ("completed", "skipped")


class SafeConsole(Console):
    """Shows control characters as escapes: names, logs and errors come from others.

    A terminal would obey them, move its cursor, and show what is not there.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)


console = SafeConsole() if sys.stdout.isatty() else SafeConsole(width=200)


def print_json(content: object) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def workflows_table(workflows: Iterable[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("workflow", "default version", "group"):
        table.add_column(heading)
    for workflow in workflows:
        table.add_row(workflow["name"], workflow["default_version"] or "-", workflow["group"])
    return table


def versions_table(versions: Iterable[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "", "registered", "by", "commit"):
        table.add_column(heading)
    for each in versions:
        state = "default" if each["default"] else "retired" if each["retired"] else ""
        commit = (each["commit"] or "")[:12]
        table.add_row(each["version"], state, each["registered_at"][:10], each["registered_by"], commit)
    return table


def schedules_table(schedules: Iterable[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("schedule", "when", "time zone", "", "sets"):
        table.add_column(heading)
    for each in schedules:
        interval = each["interval_seconds"]
        when = each["cron"] or each["rrule"] or f"every {interval:g} s"
        notes = [] if each["active"] else ["paused"]
        notes += ["only if changed"] if each["only_if_changed"] else []
        sets = ", ".join(each["parameters"])
        table.add_row(each["slug"] or "-", when, each["timezone"] or "", ", ".join(notes), sets)
    return table


def triggers_table(triggers: Iterable[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("trigger", "after", "", "inputs", "sets"):
        table.add_column(heading)
    for each in triggers:
        outputs = ", ".join(f"{place}={path}" for place, path in each["outputs"].items())
        state = "" if each["active"] else "paused"
        after = escape(each["new_file"] or each["completed"])
        inputs = escape(each["file_as"] or outputs)
        table.add_row(each["slug"], after, state, inputs, ", ".join(each["parameters"]))
    return table


def fields_table(schema: Json) -> Table:
    """The fields of a workflow's configuration, from its JSON Schema."""
    table = Table(box=None, pad_edge=False)
    for heading in ("config", "type", "required", "description"):
        table.add_column(heading)
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        kind = field.get("enum") or field.get("type") or ""
        kind = "|".join(map(str, kind)) if isinstance(kind, list) else str(kind)
        table.add_row(name, kind, "yes" if name in required else "", str(field.get("description", "")))
    return table


def status_text(status: str) -> str:
    colour = _COLOURS.get(status)
    return f"[{colour}]{status}[/{colour}]" if colour else status


def jobs_table(jobs: Iterable[Json]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("id", "name", "group", "status", "done", "created"):
        table.add_column(column, no_wrap=column in ("id", "created"))
    for job in jobs:
        progress = f"{job['progress']['done']}/{job['progress']['total']}"
        created = (job["created_at"] or "")[:19].replace("T", " ")
        table.add_row(
            job["id"], escape(job["name"]), job["group"], status_text(job["status"]), progress, created
        )
    return table


def show_job(console: Console, job: Json) -> None:
    """A job in a few lines, with its error and resolution in full."""
    done = f"{job['progress']['done']}/{job['progress']['total']}"
    console.print(
        f"{job['id']}  {escape(job['name'])}  {status_text(job['status'])}  {done}",
        highlight=False,
        soft_wrap=True,
    )
    for word in ("resumes", "resumed_by"):
        if job.get(word):
            console.print(f"  {word.replace('_', ' ')} {job[word]}", highlight=False)
    if job["error"]:
        console.print(f"[red]{escape(job['error']['message'])}[/red]", highlight=False, soft_wrap=True)
        console.print(escape(job["error"]["resolution"]), highlight=False, soft_wrap=True)


def log_line(line: Json) -> str:
    """One entry of a log. Its further lines are indented: they must not look like other entries."""
    message = line["message"].replace("\n", "\n    ")
    return f"{line['timestamp'][:19]} {line['level']:<8} {message}"


class Watch:
    """A running job: a progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_live = console.is_terminal
        columns = (
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not self._is_live)
        self._bar: Any = None
        self._statuses: dict[str, str] = {}
        self._status = ""

    def follow(self, events: Iterable[Event]) -> Json:
        """Shows events until the job has ended; returns its last state."""
        job: Json = {}
        with self._progress:
            for event in events:
                if event.kind == "job":
                    job = event.data
                    self._show_job(job)
                elif event.kind == "task":
                    self._show_rule_job(event.data)
        return job

    def _show_job(self, job: Json) -> None:
        if job["status"] != self._status:
            self._status = job["status"]
            if self._status not in FINAL:
                self._console.print(f"{self._status} …", highlight=False)
        done, total = job["progress"]["done"], job["progress"]["total"]
        if total:
            if self._bar is None:
                self._bar = self._progress.add_task("rule jobs", total=total)
            self._progress.update(self._bar, completed=done, total=total)

    def _show_rule_job(self, task: Json) -> None:
        if self._statuses.get(task["id"]) == task["status"]:
            return
        self._statuses[task["id"]] = task["status"]
        if task["status"] == "failed" or (not self._is_live and task["status"] != "running"):
            self._console.print(f"  {escape(task['name'])}: {status_text(task['status'])}", highlight=False)


def rules_table(tasks: Iterable[Json]) -> Table:
    """Counts of rule jobs by rule and status."""
    statuses: dict[str, Counter[str]] = {}
    for task in sorted(tasks, key=lambda task: task["started_at"] or "~"):
        statuses.setdefault(task["rule"], Counter())[task["status"]] += 1
    table = Table(box=None, pad_edge=False)
    for column in ("rule", "done", "of", "status"):
        table.add_column(column)
    for rule, counts in statuses.items():
        done = sum(counts[status] for status in _DONE)
        text = ", ".join(f"{count} {status_text(status)}" for status, count in counts.items())
        table.add_row(rule, str(done), str(counts.total()), text)
    return table


def plan_table(tasks: Iterable[Json]) -> Table:
    """What a dry run has planned: counts of rule jobs by rule and reason."""
    counts = Counter(
        (task["rule"], (task["reason"] or "").split(":")[0]) for task in tasks if task["status"] not in _DONE
    )
    table = Table(box=None, pad_edge=False)
    for column in ("rule", "jobs", "reason"):
        table.add_column(column)
    for (rule, reason), count in sorted(counts.items()):
        table.add_row(escape(rule), str(count), escape(reason))
    table.add_row("[bold]total[/bold]", str(counts.total()), "" if counts else "Nothing is to be done.")
    return table
