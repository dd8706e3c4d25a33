"""The summary of a job in the Prefect UI: what it says, and that a workflow's text stays text."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from flows.contract.manifest import FileKind, OutputItem
from flows.contract.presentation import Links
from flows.contract.spec import ErrorKind, Label
from flows.diagnosis import JobError
from flows.record.artifacts import key_of
from flows.record.images import LARGEST_IMAGE_BYTES, MOST_IMAGES, images_of
from flows.record.mirror import Ending, Mirror, RuleJob
from flows.snakemake_process.events import AttemptFinished, AttemptStarted, Outcome, RuleJobPlanned
from flows.summary import EndedJob, duration, escaped, size, summary_of

LINKS = Links("https://jobs.example.org/jobs/1")


def rule_jobs() -> list[RuleJob]:
    """`count` of two samples, of which the second failed, and `join`, which never ran."""
    mirror = Mirror(uuid4())
    for number, (rule, sample) in enumerate((("count", "a"), ("count", "b"), ("join", ""))):
        wildcards = {"sample": sample} if sample else {}
        mirror.observe(
            RuleJobPlanned(time=0, job_id=number, rule=rule, wildcards=wildcards, resources={}, is_done=False)
        )
    for number, (outcome, seconds, memory) in enumerate(
        ((Outcome.SUCCEEDED, 30, 2_000_000), (Outcome.FAILED, 100, 5_500_000))
    ):
        mirror.observe(AttemptStarted(time=10, job_id=number, attempt=1, resources={}))
        mirror.observe(
            AttemptFinished(
                time=10 + seconds,
                job_id=number,
                attempt=1,
                outcome=outcome,
                started_at=10,
                finished_at=10 + seconds,
                peak_memory_bytes=memory,
            )
        )
    mirror.close(Ending.FINISHED, 120)
    return mirror.rule_jobs()


def output(path: str, kind: FileKind = FileKind.OUTPUT, file: str | None = None) -> OutputItem:
    return OutputItem(path=path, kind=kind, size=1500, modified_at=datetime.now(UTC), file=file)


def ended(**more: object) -> EndedJob:
    facts = {Label.SNAKEMAKE_VERSION: "9.14.0", Label.WORKFLOW_COMMIT: ""}
    return EndedJob(
        **{  # type: ignore[arg-type]  # each test gives its own
            "status": "Failed",
            "message": "",
            "seconds": 130,
            "rule_jobs": rule_jobs(),
            "facts": facts,
            "links": LINKS,
            **more,
        }
    )


def test_it_counts_rule_jobs_by_rule_and_names_what_took_longest() -> None:
    text = summary_of(ended(status="Completed", message="Well done."))

    assert text.startswith("# Completed\n\nWell done.\n")
    assert "| Time | 2 min 10 s |" in text
    assert "| count | 1 completed, 1 failed | 1 min 5 s | 2 min 10 s | 5.5 MB |" in text
    assert text.index("| count |") < text.index("| join | 1 not run |  |  |  |")
    assert "| Snakemake | 9.14.0 |" in text
    assert "Commit" not in text, "the workflow is from no repository"


def test_it_says_first_why_a_job_failed_and_what_to_do() -> None:
    error = JobError(
        ErrorKind.WORKFLOW, "Its command failed.\n```\nE: <b>", "Correct it.", "x", rule="count[b]"
    )

    text = summary_of(ended(error=error))

    assert text.startswith(
        "# Failed\n\n**Failed rule job:** count\\[b\\]\n\n"
        "````text\nIts command failed.\n```\nE: <b>\n````\n\n**What to do:** Correct it.\n"
    )


def test_it_links_to_outputs_and_to_the_report_and_log_of_snakemake() -> None:
    outputs = [
        output("plots/a b.svg"),
        output("report.html", FileKind.REPORT, "report.html"),
        output("logs/count.log", FileKind.LOG),
        output("snakemake.log", FileKind.LOG, "snakemake.log"),
    ]

    text = summary_of(ended(outputs=outputs))

    at = "https://jobs.example.org/jobs/1"
    assert f"| [plots/a b.svg]({at}/outputs/plots/a%20b.svg?view=true) | 1.5 kB |" in text
    assert f"[Report]({at}/outputs/report.html?view=true)" in text
    assert f"[Log of Snakemake]({at}/outputs/snakemake.log?view=true)" in text
    assert f"[Usage]({at}/usage.svg)" in text
    assert "count.log" not in text
    assert "](" not in summary_of(ended(outputs=outputs, links=None))


def test_it_lists_so_many_outputs_and_says_how_many_more_there_are() -> None:
    text = summary_of(ended(outputs=[output(f"{number}.txt") for number in range(23)]))

    assert "23 files, 34 kB." in text
    assert "… and 3 more outputs." in text


def test_a_dry_run_says_what_would_run() -> None:
    assert "| count | 2 | 0 |" in summary_of(ended(is_dry_run=True))


@pytest.mark.parametrize(
    "text", ["<script>x</script>", "![x](http://a)", "a | b", "`code`", "**a**", "a\n# b"]
)
def test_text_of_a_workflow_is_no_markup(text: str) -> None:
    shown = escaped(text)

    assert "\n" not in shown
    for number, letter in enumerate(shown):
        assert letter not in "<>[]|`*#" or shown[number - 1] == "\\"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (59, "59 s"), (61, "1 min 1 s"), (7300, "2 h 1 min")],
)
def test_durations_have_two_units_at_most(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (23_400_000, "23 MB"), (4e12, "4.0 TB")],
)
def test_sizes_are_short(number: float, shown: str) -> None:
    assert size(number) == shown


@pytest.mark.parametrize(
    ("workflow", "name", "key"),
    [("", "summary", "summary"), ("RNA_seq", "summary", "rna-seq-summary"), ("", "a/É b.PNG", "a-b-png")],
)
def test_keys_are_those_that_prefect_allows(workflow: str, name: str, key: str) -> None:
    assert key_of(workflow, name) == key


def test_images_are_shown_if_they_are_small_and_inside_of_the_job(tmp_path: Path) -> None:
    work, outside = tmp_path / "work", tmp_path / "secret.png"
    work.mkdir()
    outside.write_bytes(b"secret")
    (work / "link.png").symlink_to(outside)
    (work / "large.png").write_bytes(bytes(LARGEST_IMAGE_BYTES + 1))
    (work / "plot.svg").write_text("<svg/>")
    (work / "table.tsv").write_text("a")

    found = images_of(work, ["link.png", "missing.png", "large.png", "table.tsv", "plot.svg"])

    assert [(image.path, image.address) for image in found] == [
        ("plot.svg", "data:image/svg+xml;base64,PHN2Zy8+")
    ]


def test_so_many_images_are_shown(tmp_path: Path) -> None:
    (tmp_path / "plot.svg").write_text("<svg/>")

    assert len(list(images_of(tmp_path, ["plot.svg"] * 20))) == MOST_IMAGES
