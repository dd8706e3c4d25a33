"""The summary of a job that has ended, as Markdown for the Prefect UI. Pure.

What comes from the workflow is escaped: it can be text only, not markup of the page.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from flows.contract.manifest import FileKind, OutputItem
from flows.contract.presentation import Links
from flows.contract.spec import Label
from flows.diagnosis import JobError
from flows.record.mirror import RuleJob

_MOST_RULES = 50
_MOST_OUTPUTS = 20
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#&~])")
_FACTS = {
    Label.WORKFLOW_NAME: "Workflow",
    Label.WORKFLOW_VERSION: "Version",
    Label.WORKFLOW_COMMIT: "Commit",
    Label.SNAKEMAKE_VERSION: "Snakemake",
}


@dataclass(frozen=True, slots=True)
class EndedJob:
    """What the summary is about."""

    status: str
    message: str
    seconds: float
    rule_jobs: Sequence[RuleJob]
    facts: Mapping[str, object]
    """Labels of its flow run."""
    error: JobError | None = None
    is_dry_run: bool = False
    outputs: Sequence[OutputItem] = field(default=())
    links: Links | None = None

    @property
    def results(self) -> list[OutputItem]:
        return [item for item in self.outputs if item.kind in (FileKind.OUTPUT, FileKind.REPORT)]


def summary_of(job: EndedJob) -> str:
    """The whole page."""
    parts = [
        f"# {job.status}\n\n{escaped(job.message)}" if job.error is None else f"# {job.status}",
        *(_failure(job.error) if job.error else ()),
        _facts(job),
        _rules(job),
        _outputs(job),
        _links(job),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _failure(error: JobError) -> Iterator[str]:
    if error.rule:
        yield f"**Failed rule job:** {escaped(error.rule)}"
    yield _verbatim(error.message)
    yield f"**What to do:** {escaped(error.resolution)}"


def _facts(job: EndedJob) -> str:
    rows = [
        ("Time", duration(job.seconds)),
        ("Rule jobs", _counted(Counter(each.state.name for each in job.rule_jobs))),
    ]
    rows += [
        (title, escaped(str(job.facts[label]))) for label, title in _FACTS.items() if job.facts.get(label)
    ]
    return _table(("", ""), rows)


def _counted(states: Counter[str]) -> str:
    return ", ".join(f"{number} {_words(state)}" for state, number in states.most_common()) or "none"


def _words(state: str) -> str:
    """`NotRun` as "not run"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", state).lower()


def _rules(job: EndedJob) -> str:
    by_rule: dict[str, list[RuleJob]] = defaultdict(list)
    for each in job.rule_jobs:
        by_rule[each.planned.rule].append(each)
    if not by_rule:
        return ""
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    if job.is_dry_run:
        header = ("Rule", "Would run", "Up to date")
        rows = [_planned_row(*each) for each in by_rule.items()]
    else:
        header = ("Rule", "Rule jobs", "Median time", "Total time", "Peak memory")
        by_time = sorted(by_rule.items(), key=lambda each: -sum(_times(each[1])))
        rows = [_rule_row(*each) for each in by_time]
    return "## Rules\n\n" + _table(header, rows[:_MOST_RULES]) + _left_out(len(rows) - _MOST_RULES, "rules")


def _planned_row(rule: str, jobs: Sequence[RuleJob]) -> tuple[str, ...]:
    done = sum(each.planned.is_done for each in jobs)
    return escaped(rule), str(len(jobs) - done), str(done)


def _rule_row(rule: str, jobs: Sequence[RuleJob]) -> tuple[str, ...]:
    times = _times(jobs)
    memory = [each.finished.peak_memory_bytes or 0 for each in jobs if each.finished]
    return (
        escaped(rule),
        _counted(Counter(each.state.name for each in jobs)),
        duration(median(times)) if times else "",
        duration(sum(times)) if times else "",
        size(max(memory)) if any(memory) else "",
    )


def _times(jobs: Iterable[RuleJob]) -> list[float]:
    """Of the last attempt of each, in seconds."""
    return [each.state.timestamp - each.started.time for each in jobs if each.started and each.has_ended]


def _outputs(job: EndedJob) -> str:
    results = job.results
    if not results:
        return ""
    rows = [(_linked(item.path, job.links), size(item.size)) for item in results[:_MOST_OUTPUTS]]
    total = size(sum(item.size for item in results))
    more = _left_out(len(results) - _MOST_OUTPUTS, "outputs")
    return f"## Outputs\n\n{len(results)} files, {total}.\n\n{_table(('File', 'Size'), rows)}{more}"


def _linked(path: str, links: Links | None) -> str:
    return escaped(path) if links is None else f"[{escaped(path)}]({links.output(path)})"


def _links(job: EndedJob) -> str:
    if job.links is None:
        return ""
    pages = {"Graph": job.links.graph, "Usage": job.links.usage}
    for item in job.outputs:
        if item.file is not None:  # not one of the workflow's own
            title = "Report" if item.kind is FileKind.REPORT else "Log of Snakemake"
            pages[title] = job.links.output(item.path)
    return " · ".join(f"[{title}]({address})" for title, address in pages.items())


def _left_out(number: int, things: str) -> str:
    return f"\n\n… and {number} more {things}." if number > 0 else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _verbatim(text: str) -> str:
    """A block of code, whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def escaped(text: str) -> str:
    """On one line, without markup."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def duration(seconds: float) -> str:
    """For people: two units at most."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


def size(number: float) -> str:
    """In units of 1,000 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
