"""Submissions to sapporo, the WES server of this field, with a workflow engine that ends at once."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from deployments.processes import StackProcess
from tests.benchmarks.load import Load, post_times
from tests.conftest import free_ports

VERSION = "2.4.0"

_RUN_SH = """#!/bin/bash
echo 0 > "$1/exit_code.txt"
echo COMPLETE > "$1/state.txt"
"""
_BOUNDARY = "benchmark"
_FORM = {
    "workflow_type": "SMK",
    "workflow_type_version": "1.0",
    "workflow_engine": "snakemake",
    "workflow_url": "https://example.org/Snakefile",
    "workflow_params": "{}",
}
_READY_SECONDS = 30


@contextlib.contextmanager
def sapporo(directory: Path) -> Iterator[str | None]:
    """The address of a sapporo of its own environment; none where it can't be installed."""
    python = directory / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", f"sapporo=={VERSION}"]
    subprocess.run([sys.executable, "-m", "venv", str(directory / "venv")], check=True)
    if subprocess.run(install, check=False, stderr=subprocess.DEVNULL).returncode:
        yield None
        return
    run_sh = directory / "run.sh"
    run_sh.write_text(_RUN_SH)
    run_sh.chmod(0o755)
    runs = directory / "runs"
    runs.mkdir()
    (port,) = free_ports(1)
    command = [str(python.with_name("sapporo")), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--run-dir", str(runs), "--run-sh", str(run_sh)]
    process = StackProcess.start("sapporo", command, dict(os.environ), directory)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process)
        yield url
    finally:
        process.stop(10)


def submit(url: str, clients: int, seconds: float) -> Load:
    parts = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in _FORM.items()
    )
    body = "".join([*parts, f"--{_BOUNDARY}--\r\n"]).encode()
    return post_times(f"{url}/runs", body, clients, seconds, f"multipart/form-data; boundary={_BOUNDARY}")


def _wait_until_ready(url: str, process: StackProcess) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/service-info").is_success:
                return
        process.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"sapporo did not answer within {_READY_SECONDS} s")
        time.sleep(0.2)
