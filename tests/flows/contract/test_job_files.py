"""A job's files are read where they belong, and removed whatever they are, whoever has been at them."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from flows.contract.job_files import open_file, remove_tree, work_of
from tests.support import unprivileged


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The directory of a job, with a file of its own and one that is none of it beside it."""
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "own").write_text("own")
    (tmp_path / "other").write_text("other")
    return directory


def link(place: Path, target: str) -> None:
    place.symlink_to(target)


def test_a_plain_file_is_opened_where_it_is(work: Path) -> None:
    with open_file(work / "own") as file:
        assert file.read() == b"own"


@pytest.mark.parametrize("target", ["own", "../other", "/proc/self/environ", "/dev/zero", "x", "nowhere"])
def test_no_link_leads_to_a_file_that_has_a_place_of_its_own(work: Path, target: str) -> None:
    link(work / "x", target)
    with pytest.raises(FileNotFoundError):
        open_file(work / "x")


def test_a_link_may_lead_to_what_is_within(work: Path) -> None:
    link(work / "x", "own")
    with open_file(work / "x", within=work) as file:
        assert file.read() == b"own"


@pytest.mark.parametrize("target", ["../other", "/proc/self/environ", "/dev/zero", ".", "x", "nowhere"])
def test_a_link_to_what_is_not_within_leads_nowhere(work: Path, target: str) -> None:
    link(work / "x", target)
    with pytest.raises(FileNotFoundError):
        open_file(work / "x", within=work)


@pytest.mark.parametrize("name", ["../other", "own/x", "x" * 300, "nul\0", "\ud800"])
def test_what_is_no_name_of_a_file_within_is_not_there(work: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        open_file(work / name, within=work)


def test_a_directory_that_has_become_a_link_holds_nothing(work: Path, tmp_path: Path) -> None:
    work.rename(tmp_path / "moved")
    link(work, "/")
    for within in (None, work):
        with pytest.raises(FileNotFoundError):
            open_file(work / "proc" / "self" / "environ", within)


def test_a_pipe_is_not_waited_for(work: Path) -> None:
    os.mkfifo(work / "pipe")
    with pytest.raises(FileNotFoundError):
        open_file(work / "pipe")


def test_refusals_leave_nothing_open(work: Path) -> None:
    link(work / "x", "/dev/zero")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(FileNotFoundError):
            open_file(work / "x", within=work)
    assert len(os.listdir("/proc/self/fd")) == before


class TestWhereAJobWorks:
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        directory = tmp_path / str(uuid4())
        directory.mkdir()
        return directory

    def test_is_a_directory_of_its_own(self, directory: Path) -> None:
        assert work_of(directory) == directory / "work"
        (directory / "work").mkdir()
        assert work_of(directory) == directory / "work"

    def test_is_that_of_the_job_that_it_resumes(self, directory: Path) -> None:
        first = uuid4()
        link(directory / "work", f"../{first}/work")
        assert work_of(directory) == directory.parent / str(first) / "work"

    @pytest.mark.parametrize(
        "target", ["/", "..", "../elsewhere/work", "../{0}", "../{0}/work/x", "{0}/work", "../../{0}/work"]
    )
    def test_is_nowhere_that_a_rule_has_thought_of(self, directory: Path, target: str) -> None:
        link(directory / "work", target.format(uuid4()))
        assert work_of(directory) == directory / "work"


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory of a user who may not do everything, as whom the test runs."""
    with tempfile.TemporaryDirectory() as directory, unprivileged(Path(directory)):
        yield Path(directory)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_what_was_made_read_only_is_removed(disk: Path, mode: int) -> None:
    deep = disk / "work" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    (disk / "other").mkdir()
    (disk / "other").chmod(0o555)
    link(deep / "link", "../../../other")
    for directory in (deep, deep.parent, disk / "work"):
        directory.chmod(mode)

    remove_tree(disk / "work")

    assert os.listdir(disk) == ["other"]
    assert stat.S_IMODE((disk / "other").stat().st_mode) == 0o555


def test_what_is_nested_too_deeply_is_told_as_other_failures_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(3_000):  # deeper than Python calls itself
        os.mkdir("x")
        os.chdir("x")
    with suppress(OSError):  # later versions of Python get it done
        remove_tree(tmp_path / "x")
    monkeypatch.undo()
    subprocess.run(["rm", "-rf", tmp_path / "x"], check=True)
