"""What a workflow prints outside of its rule jobs is in the job's log: once, and in order."""

import subprocess
import sys
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


def test_threads_and_exit_handlers_of_a_snakefile_run_to_their_end(
    workspace: Workspace, tmp_path: Path
) -> None:
    snakefile = """
    import atexit
    import threading
    from pathlib import Path

    rule all:
        output: "a"
        shell: "touch {output}"

    atexit.register(lambda: Path("at_exit").write_text("written"))
    atexit.register(print, "printed at exit")

    def slow(begun):
        begun.wait(1)
        print("printed by a thread")

    onsuccess:
        threading.Thread(target=slow, args=[threading.Event()]).start()
    """
    told = execute(workspace, write_workflow(tmp_path / "leaving", snakefile))

    said = [event.text for event in told.of(Message)]
    assert told.exit_code == 0
    assert [text for text in said if text.startswith("printed")] == ["printed by a thread", "printed at exit"]
    assert (workspace.work / "at_exit").read_text() == "written"


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    program = """
import atexit, threading
from flows.snakemake_process import leaving
atexit.register(print, "of the parent")
leaving.begin()
leaving.EXIT_SECONDS = 0.2
threading.Thread(target=threading.Event().wait).start()
leaving.leave(3)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"", b"")


def test_a_parents_exit_handlers_do_not_run() -> None:
    program = """
import atexit
from flows.snakemake_process import leaving
atexit.register(print, "of the parent")
leaving.begin()
atexit.register(print, "of the workflow")
leaving.leave(3)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"of the workflow\n", b"")
