"""What ends of the stack is started again, and what an earlier stack has left is ended."""

import json
import os
from pathlib import Path

import psutil
import pytest

from deployments.processes import StackProcess, python
from deployments.supervision import Supervision, end_recorded
from tests.support import wait_until

ENDLESS = "import signal; signal.pause()"


def started(tmp_path: Path, program: str) -> StackProcess:
    return StackProcess.start("part", python("-c", program), os.environ, tmp_path)


def test_a_part_that_is_killed_is_started_again_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    supervision = Supervision(tmp_path / "processes.json", said.append)
    part = supervision.add("part", "The part", lambda: started(tmp_path, ENDLESS), 5)
    first = psutil.Process(part.process.pid)

    first.kill()
    wait_until(lambda: part.process.has_ended, "it has ended")
    supervision.supervise()

    assert not part.process.has_ended
    assert part.process.pid != first.pid
    assert said == ["The part was killed by SIGKILL. Starting it again now."]
    part.stop()


def test_a_part_that_cannot_stay_is_started_ever_more_rarely_and_its_log_is_shown(tmp_path: Path) -> None:
    said: list[str] = []
    starts: list[None] = []

    def start() -> StackProcess:
        starts.append(None)
        return started(tmp_path, "raise SystemExit('no room')")

    supervision = Supervision(tmp_path / "processes.json", said.append)
    supervision.add("part", "The part", start, 5)

    def is_shown() -> bool:
        supervision.supervise()
        return "3 times in a row" in said[-1] if said else False

    wait_until(is_shown, "the operator sees why")

    assert "no room" in said[-1]
    assert "in 2 s" in said[-2]
    assert len(starts) == 3


def test_only_the_recorded_processes_of_an_earlier_stack_are_ended(tmp_path: Path) -> None:
    records = tmp_path / "processes.json"
    supervision = Supervision(records, print)
    left = supervision.add("part", "The part", lambda: started(tmp_path, ENDLESS), 5).process
    other = started(tmp_path, ENDLESS)
    content = json.loads(records.read_text())
    content["other"] = [other.pid, psutil.Process(other.pid).create_time() - 60]  # its pid was another's
    records.write_text(json.dumps(content))

    end_recorded(records)

    assert left.has_ended
    assert not other.has_ended
    other.stop(5)


@pytest.mark.parametrize("records", ["", "no json"])
def test_without_a_readable_record_nothing_is_ended(tmp_path: Path, records: str) -> None:
    (tmp_path / "processes.json").write_text(records)

    end_recorded(tmp_path / "processes.json")
