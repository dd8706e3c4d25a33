"""What each attempt at a rule job wrote and why it ran, as log entries of its task run."""

import json
import logging
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

from flows.record.attempt_logs import HEAD_BYTES, TAIL_BYTES, AttemptLogs
from flows.record.excerpts import tail
from flows.record.mirror import Mirror
from flows.record.shown_paths import ShownPaths
from flows.record.task_runs import JsonObject, isoformat, task_run_id_of
from flows.snakemake_process.events import WorkflowEvent
from tests.flows.stories import START, failed, planned, started, succeeded


class Reader:
    """Follows the logs of one job, and keeps what Prefect would be given."""

    def __init__(self, work: Path) -> None:
        self.flow_run_id = uuid4()
        self._mirror = Mirror(self.flow_run_id)
        self._logs = AttemptLogs(self.flow_run_id, ShownPaths(work.parent, work))
        self.observe(planned(1, logs=("logs/map.err", "logs/map.txt")))
        self.observe(planned(2, "join"))

    def observe(self, *events: WorkflowEvent) -> None:
        for event in events:
            self._mirror.observe(event)
            self._logs.observe(event, self._mirror)

    def entries(self, job_id: int = 1) -> list[JsonObject]:
        """What is new of a rule job."""
        new: list[JsonObject] = []
        while batch := self._logs.take():
            new += batch
        task_run_id = str(task_run_id_of(self.flow_run_id, job_id))
        return [entry for entry in new if entry["task_run_id"] == task_run_id]

    def stop(self) -> None:
        """The job is cancelled."""
        self._mirror.stop()

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.entries()]


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    (tmp_path / "work" / "logs").mkdir(parents=True)
    return Reader(tmp_path / "work")


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """The first `log:` file of rule job 1."""
    return tmp_path / "work" / "logs" / "map.err"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file that takes an attempt's output."""
    path = tmp_path / "1.1.log"
    path.touch()
    return path


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as stream:
        stream.write(text.encode() if isinstance(text, str) else text)


def test_an_attempt_is_announced_with_its_resources_reason_and_command(reader: Reader) -> None:
    reader.observe(
        started(
            threads=2,
            resources={"mem_mb": 4000, "tmpdir": "/tmp"},
            reason="Missing output files: a.txt",
            shell="touch a.txt",
        )
    )
    (announcement,) = reader.entries()
    assert announcement["message"].splitlines() == [
        "Attempt 1: 2 threads, mem_mb=4000, tmpdir=/tmp",
        "Reason: Missing output files: a.txt",
        "Command: touch a.txt",
    ]
    assert announcement["timestamp"] == isoformat(START + 1)
    assert announcement["level"] == logging.INFO


def test_an_announcement_says_nothing_that_is_not_known(reader: Reader) -> None:
    reader.observe(started())
    assert reader.messages() == ["Attempt 1: 1 thread"]


def test_output_is_read_on_in_whole_lines_while_the_attempt_runs(reader: Reader, log: Path) -> None:
    reader.observe(started(log_path=str(log)))
    append(log, "first\nsecond\nthi")
    assert reader.messages() == ["Attempt 1: 1 thread", "first\nsecond"]
    append(log, "rd")
    assert reader.messages() == []
    append(log, "\nfourth")
    assert reader.messages() == ["third"]
    reader.observe(succeeded())
    assert reader.messages() == ["fourth"]
    assert reader.messages() == []


def test_each_attempt_has_its_own_output(reader: Reader, log: Path, tmp_path: Path) -> None:
    append(log, "once\n")
    append(tmp_path / "1.2.log", "twice\n")
    reader.observe(started(log_path=str(log)), failed(will_retry=True, message="Exit code 4."))
    reader.observe(started(attempt=2, log_path=str(tmp_path / "1.2.log")), succeeded(attempt=2))
    assert reader.messages() == [
        "Attempt 1: 1 thread",
        "once",
        "Attempt 1 failed. It will be retried.\nExit code 4.",
        "Attempt 2: 1 thread",
        "twice",
    ]


def test_a_failure_is_an_error_of_its_own_at_the_attempts_end(reader: Reader) -> None:
    reader.observe(started(), failed(at=7, message="It broke."))
    ending = reader.entries()[-1]
    assert ending["message"] == "Attempt 1 failed. It will not be retried.\nIt broke."
    assert ending["level"] == logging.ERROR
    assert ending["timestamp"] == isoformat(START + 7)


def test_an_attempt_that_was_stopped_with_its_job_has_not_failed(reader: Reader) -> None:
    reader.observe(started())
    reader.stop()
    reader.observe(failed(exit_code=-15, message="killed"))
    ending = reader.entries()[-1]
    assert ending["message"] == "Attempt 1 was stopped with the job."
    assert ending["level"] == logging.INFO


def test_paths_are_shown_relative_to_the_workflows_directory(
    reader: Reader, log: Path, log_file: Path, tmp_path: Path
) -> None:
    append(log, f"in {tmp_path}/work: {tmp_path}/work/logs/x and {tmp_path}/config.json\n")
    append(log_file, f"{tmp_path}/work/a.bam is damaged\n")
    reader.observe(started(log_path=str(log)), succeeded())
    assert reader.messages() == [
        "Attempt 1: 1 thread",
        "in .: logs/x and ../config.json",
        "Log file logs/map.err:\na.bam is damaged",
    ]


def test_output_goes_to_the_task_run_of_its_rule_job(reader: Reader, log: Path) -> None:
    append(log, "of the join\n")
    reader.observe(started(1), started(2, log_path=str(log)), succeeded(2))
    messages = [entry["message"] for entry in reader.entries(job_id=2)]
    assert messages == ["Attempt 1: 1 thread", "of the join"]


def test_an_attempt_at_a_rule_job_that_nobody_planned_is_passed_over(reader: Reader) -> None:
    reader.observe(started(99), failed(99))
    assert reader.entries(job_id=99) == []


def test_a_missing_log_file_is_no_error(reader: Reader, tmp_path: Path) -> None:
    reader.observe(started(log_path=str(tmp_path / "gone.log")), succeeded())
    assert reader.messages() == ["Attempt 1: 1 thread"]


@pytest.mark.parametrize("target", ["secret", "/dev/zero", "/proc/self/environ"])
def test_a_log_that_its_rule_has_made_a_link_to_elsewhere_is_not_read(
    reader: Reader, tmp_path: Path, target: str
) -> None:
    (tmp_path / "secret").write_text("of the flow\n")
    (tmp_path / "1.1.log").symlink_to(target)
    reader.observe(started(log_path=str(tmp_path / "1.1.log")), succeeded())
    assert reader.messages() == ["Attempt 1: 1 thread"]
    assert tail(tmp_path / "1.1.log", 3) == ""


def test_a_long_output_shows_its_beginning_and_its_end_and_says_where_the_whole_is(
    reader: Reader, log: Path
) -> None:
    append(log, "0123456789abcde\n" * (HEAD_BYTES // 16 + 4 * TAIL_BYTES // 16) + "FATAL\n")
    reader.observe(started(log_path=str(log)), failed(exit_code=9))
    _, *output, left_out, before_last, last, ending = reader.messages()
    head = "\n".join(output)
    assert set(head.splitlines()) == {"0123456789abcde"}
    assert HEAD_BYTES - 16 <= len(head) + 1 <= HEAD_BYTES
    whole = f"/jobs/{reader.flow_run_id}/outputs/.snakemake/attempts/1.1.log"
    assert (
        left_out == f"… {3 * TAIL_BYTES + 16:,} bytes are left out; at the job's end {whole} has the whole."
    )
    assert set(before_last.splitlines()) == {"0123456789abcde"}
    assert last.endswith("\n0123456789abcde\nFATAL")
    assert ending.startswith("Attempt 1 failed.")
    append(log, "still more\n")
    assert reader.messages() == []


def test_an_attempt_that_writes_much_is_followed_for_a_while_and_its_end_comes_when_it_has_ended(
    reader: Reader, log: Path
) -> None:
    reader.observe(started(log_path=str(log)))
    append(log, "0123456789abcde\n" * (2 * HEAD_BYTES // 16))
    _, *output, note = reader.messages()
    assert len("\n".join(output)) + 1 == HEAD_BYTES
    assert "the end follows" in note
    append(log, "FATAL\n")
    assert reader.messages() == []
    reader.observe(succeeded())
    assert reader.messages()[-1].endswith("\nFATAL")


def test_an_attempt_whose_whole_output_is_shown_does_not_say_that_there_is_more(
    reader: Reader, log: Path
) -> None:
    append(log, "0123456789abcde\n" * ((HEAD_BYTES + TAIL_BYTES) // 16))
    reader.observe(started(log_path=str(log)), succeeded())
    _, *output = reader.messages()
    assert len("\n".join(output)) + 1 == HEAD_BYTES + TAIL_BYTES


def test_the_log_files_of_a_rule_job_follow_its_output(reader: Reader, log: Path, log_file: Path) -> None:
    append(log, "written\n")
    append(log_file, "E42\nno such reference\n")
    append(log_file.with_name("map.txt"), "")
    reader.observe(started(log_path=str(log)), failed(exit_code=7))
    assert reader.messages() == [
        "Attempt 1: 1 thread",
        "written",
        "Log file logs/map.err:\nE42\nno such reference",
        "Attempt 1 failed. It will not be retried.",
    ]


def test_each_attempt_has_its_own_log_files_although_the_next_one_overwrites_them(
    reader: Reader, log_file: Path
) -> None:
    log_file.write_text("once\n")
    reader.observe(started(), failed(will_retry=True))
    log_file.write_text("twice\n")
    reader.observe(started(attempt=2), succeeded(attempt=2))
    messages = reader.messages()
    assert [text for text in messages if text.startswith("Log file")] == [
        "Log file logs/map.err:\nonce",
        "Log file logs/map.err:\ntwice",
    ]


@pytest.mark.parametrize("target", ["../../secret", "/proc/self/environ"])
def test_a_log_file_that_links_out_of_the_jobs_directory_is_not_read(
    reader: Reader, log_file: Path, tmp_path: Path, target: str
) -> None:
    (tmp_path / "secret").write_text("of the flow\n")
    log_file.symlink_to(target)
    reader.observe(started(), succeeded())
    assert reader.messages() == ["Attempt 1: 1 thread"]


@pytest.mark.parametrize("ends", [False, True], ids=["still running", "ended"])
@pytest.mark.parametrize("character", ["a", "é", "→", "🐍"])
def test_long_output_is_cut_between_lines_and_never_within_a_character(
    reader: Reader, log: Path, character: str, ends: bool
) -> None:
    text = "".join(f"{number} {character * (number % 50)}\n" for number in range(2000))
    append(log, text)
    reader.observe(started(log_path=str(log)), *([succeeded()] if ends else []))
    _, *output = reader.messages()
    assert len(output) > 1
    assert "".join(f"{message}\n" for message in output) == text


@pytest.mark.parametrize("character", ["a", "é", "→", "🐍"])
def test_a_line_longer_than_a_chunk_loses_no_character(reader: Reader, log: Path, character: str) -> None:
    append(log, "-" + character * 40_000 + "\n")
    reader.observe(started(log_path=str(log)), succeeded())
    _, *output = reader.messages()
    assert "".join(output) == "-" + character * 40_000


def test_binary_output_becomes_text_that_prefect_can_store(reader: Reader, log: Path) -> None:
    append(log, b"begin\x00\x01\xff\xfe\x80end\n")
    reader.observe(started(log_path=str(log)), succeeded())
    _, output = reader.messages()
    assert output.startswith("begin")
    assert output.endswith("end")
    assert "\x00" not in output, "PostgreSQL stores no NUL"
    assert json.loads(json.dumps(output).encode()) == output


def test_output_keeps_its_order_for_a_reader_that_sorts_by_time(reader: Reader, log: Path) -> None:
    append(log, "a line of output\n" * 9_000)
    reader.observe(started(at=1, log_path=str(log)), failed(at=2))
    moments = [datetime.fromisoformat(entry["timestamp"]) for entry in reader.entries()]
    assert len(moments) > 3
    assert all(earlier < later for earlier, later in pairwise(moments))


def test_the_logs_of_many_attempts_are_given_in_portions(reader: Reader) -> None:
    mirror, logs = Mirror(reader.flow_run_id), AttemptLogs(reader.flow_run_id)
    for job_id in range(500):
        for event in (planned(job_id), started(job_id), succeeded(job_id)):
            mirror.observe(event)
            logs.observe(event, mirror)
    portions = []
    while portion := logs.take():
        portions.append(len(portion))
    assert sum(portions) == 500
    assert max(portions) <= 250


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("one\ntwo\nthree\n", "two\nthree"),
        ("one", "one"),
        ("", ""),
        ("one\ntwo\n\n\n", "one\ntwo"),
        ("x" * 100_000 + "\nlast\n", "x" * (32 * 1024 - 6) + "\nlast"),
    ],
    ids=["more lines than asked for", "no newline at the end", "empty", "blank end", "a very long line"],
)
def test_the_tail_of_a_file_is_its_last_lines(log: Path, content: str, shown: str) -> None:
    append(log, content)
    assert tail(log, lines=2) == shown


def test_the_tail_of_no_file_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "gone.log", lines=2) == ""
