"""The two ways in: `make demo` and `make up`, as a newcomer starts them."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import free_ports
from tests.support import JobsClient, is_ready, wait_until


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """As a newcomer has it, but with a home and ports that nobody uses."""
    api_port, prefect_port = free_ports(2)
    return {
        **os.environ,
        "JOBS_HOME": str(home),
        "JOBS_API_PORT": str(api_port),
        "PREFECT_SERVER_API_PORT": str(prefect_port),
    }


def processes_on(home: Path) -> list[psutil.Process]:
    """Processes that know this home: in their arguments, environment or working directory."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ", "cwd"])
        if str(home) in f"{process.info['cmdline']}{process.info['environ']}{process.info['cwd']}"
    ]


@contextmanager
def running_up(environment: dict[str, str]) -> Iterator[tuple[psutil.Process, str]]:
    """`make up` and the address of its jobs API, until Ctrl-C or until it is killed."""
    up = subprocess.Popen(
        [sys.executable, "-m", "deployments", "up"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        lines = iter(up.stdout or ())
        wait_until(lambda: "Stop with Ctrl-C" in next(lines), "the stack is up", seconds=120)
        yield psutil.Process(up.pid), f"http://127.0.0.1:{environment['JOBS_API_PORT']}"
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)


def test_the_demo_runs_the_example_and_a_second_start_finds_its_job(
    home: Path, environment: dict[str, str]
) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "deployments", "demo"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.count("  call_variants[") == 2, "progress is shown in plain lines"
    assert "results/variants.vcf.gz" in demo.stdout
    assert "runs/flow-run/" in demo.stdout
    assert processes_on(home) == []

    with running_up(environment) as (_, url):
        (job,) = httpx.get(f"{url}/jobs").json()["items"]
        assert (job["name"], job["status"]) == ("demo", "completed")
    assert processes_on(home) == []


def test_a_taken_port_is_told_in_one_line(environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(environment["JOBS_API_PORT"])))
        taken.listen()
        demo = subprocess.run(
            [sys.executable, "-m", "deployments", "demo"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert demo.returncode == 1
    (line,) = (demo.stdout + demo.stderr).splitlines()
    assert f"Port {environment['JOBS_API_PORT']} is in use" in line
    assert "JOBS_API_PORT=" in line


def test_whatever_is_killed_is_started_again_and_a_killed_stack_leaves_nothing(
    home: Path, environment: dict[str, str]
) -> None:
    with running_up(environment) as (up, url):
        jobs = JobsClient(httpx.Client(base_url=url, timeout=30))
        job_id = jobs.submit(engine="mock", mock={"delay_seconds": [20, 20], "success_rate": 1, "rules": 2})
        wait_until(lambda: jobs.get(job_id)["status"] == "running", "it runs")
        before = parts(home)
        assert set(before) == {"postgres", "prefect-server", "worker", "api"}

        for pid in before.values():
            os.kill(pid, signal.SIGKILL)

        wait_until(lambda: not set(before.values()) & set(parts(home).values()), "all are new")
        wait_until(lambda: answers_ready(url), "the service is ready again")
        assert jobs.wait(job_id)["status"] == "completed"
        assert_no_secret_is_shown(home)
        up.kill()

    with running_up(environment) as (_, url):
        assert httpx.get(f"{url}/jobs/{job_id}").json()["status"] == "completed"
    assert processes_on(home) == []


def parts(home: Path) -> dict[str, int]:
    """The pid of each part of the stack."""
    return {name: pid for name, (pid, _) in json.loads((home / "processes.json").read_text()).items()}


def answers_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return is_ready(httpx.get(f"{url}/readyz").json()["parts"])
    return False


def assert_no_secret_is_shown(home: Path) -> None:
    """Neither a command line nor a log has a password."""
    files = list((home / "secrets").iterdir())
    passwords = [file.read_text().strip().rpartition(":")[2] for file in files]
    assert len(passwords) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    shown = [str(process.info["cmdline"]) for process in psutil.process_iter(["cmdline"])]
    shown += [log.read_text() for log in (home / "logs").iterdir()]
    assert not [text for text in shown for password in passwords if password in text]
