"""What a workflow prints outside of its rule jobs is in the job's log: once, and in order."""

from pathlib import Path

from flows.snakemake_process.events import ErrorRaised, Message
from flows.workspace.workspace import Workspace
from tests.flows.executions import execute, write_workflow

SNAKEFILE = """
import sys

print("parsed")
shell("echo from a command")

onstart:
    print("onstart")

onsuccess:
    print("onsuccess")
    print("about to end", file=sys.stderr)
    shell("echo mailed >&2")

rule all:
    output: "a"
    shell: "echo of the rule; touch {output}"

print("without an end", end="")
"""


def test_prints_of_snakefile_and_handlers_are_messages_in_order(workspace: Workspace, tmp_path: Path) -> None:
    told = execute(workspace, write_workflow(tmp_path / "printing", SNAKEFILE))

    said = [line for event in told.of(Message) for line in event.text.splitlines()]
    whole = workspace.snakemake_log.read_text()

    printed = ["parsed", "from a command", "without an endonstart", "onsuccess", "about to end", "mailed"]
    assert [line for line in said if line in printed] == printed
    assert sum("Nothing to be done" in line or "1 of 1 steps" in line for line in said) <= 1
    assert all(line in whole for line in ("parsed", "from a command", "onsuccess", "mailed"))
    assert "of the rule" not in [*said, *whole.splitlines()]
    assert told.output_of("all") == "of the rule\n"


def test_an_error_that_a_snakefile_logs_before_it_gives_up_is_reported_once(
    workspace: Workspace, tmp_path: Path
) -> None:
    snakefile = """
    from snakemake.logging import logger
    logger.error("samples.tsv lacks a column\\nof barcodes")
    raise SystemExit(1)
    """
    told = execute(workspace, write_workflow(tmp_path / "giving_up", snakefile))

    said = [*map(str, told.of(Message)), *map(str, told.of(ErrorRaised))]

    assert "\n".join(said).count("lacks a column") == 1
