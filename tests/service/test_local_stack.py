"""The two ways in: `make demo` and `make up`, as a newcomer starts them."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import free_ports
from tests.support import wait_until


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

    up = subprocess.Popen(
        [sys.executable, "-m", "deployments", "up"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        url = f"http://127.0.0.1:{environment['JOBS_API_PORT']}"
        lines = iter(up.stdout or ())
        wait_until(lambda: "Stop with Ctrl-C" in next(lines), "the stack is up", seconds=120)
        (job,) = httpx.get(f"{url}/jobs").json()["items"]
        assert (job["name"], job["status"]) == ("demo", "completed")
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
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
