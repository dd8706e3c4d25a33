"""A worker says what its machine lacks to keep jobs apart, or does not start."""

import logging
import sys
from pathlib import Path

import pytest

from flows.contract.isolation import Isolation, IsolationSettings, Network, read_missing
from flows.worker.isolation_probe import IsolationMissing, check_isolation
from tests.support import needs_networks

UNABLE = "#!/bin/sh\necho 'unshare: Operation not permitted'\n"


@pytest.fixture
def unable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernel forbids user namespaces, as Docker's does; only its answer is made up."""
    program = tmp_path / "python"
    program.write_text(UNABLE)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


@needs_networks
def test_this_machine_can_keep_jobs_apart(tmp_path: Path) -> None:
    check_isolation(IsolationSettings(isolation=Isolation.REQUIRED), tmp_path)
    assert read_missing(tmp_path) in ([], ["Landlock"])


@pytest.mark.usefixtures("unable")
def test_where_rooms_are_required_a_machine_without_them_starts_no_worker(tmp_path: Path) -> None:
    with pytest.raises(IsolationMissing, match="unshare: Operation not permitted"):
        check_isolation(IsolationSettings(isolation=Isolation.REQUIRED), tmp_path)


@pytest.mark.usefixtures("unable")
def test_where_rooms_are_preferred_the_log_and_the_jobs_api_say_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "prefect.workers.snakemake"):
        check_isolation(IsolationSettings(isolation=Isolation.PREFERRED), tmp_path)
    assert "unshare: Operation not permitted" in caplog.text
    assert read_missing(tmp_path) == ["unshare: Operation not permitted"]


@pytest.mark.usefixtures("unable")
def test_where_rooms_are_off_nothing_is_said(tmp_path: Path) -> None:
    check_isolation(IsolationSettings(isolation=Isolation.PREFERRED), tmp_path)
    check_isolation(IsolationSettings(isolation=Isolation.OFF), tmp_path)
    assert read_missing(tmp_path) is None


def test_a_machine_without_slirp4netns_says_that_jobs_share_its_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_isolation(IsolationSettings(room_network={"*": Network.HOST}), tmp_path)
    assert read_missing(tmp_path) in ([], ["Landlock"])

    check_isolation(IsolationSettings(), tmp_path)

    assert "a network for each job: slirp4netns is not installed" in (read_missing(tmp_path) or [])
    with pytest.raises(IsolationMissing, match="slirp4netns"):
        check_isolation(IsolationSettings(isolation=Isolation.REQUIRED), tmp_path)
