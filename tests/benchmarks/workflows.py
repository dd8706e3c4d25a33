"""How long workflows take: submitted to this service, and run by a bare `snakemake`."""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from deployments.local import PROJECT, WORK_POOL, LocalStack
from tests.benchmarks.rows import Report, Row, median, seconds
from tests.support import WORKFLOWS, JobsClient, wait_until

ONE_RULE = 'rule one:\n    output: "began.txt"\n    shell: "date +%s.%N > {output}"\n'
PROCESS_GROUP = "benchmark-process"


@dataclass(frozen=True)
class Run:
    wall: float
    cpu: float = 0.0


@contextmanager
def one_rule_workflow(roots: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=roots) as directory:
        (Path(directory) / "Snakefile").write_text(ONE_RULE)
        yield directory


def bare(workflow: Path, cores: int, *arguments: str) -> Run:
    """A bare `snakemake` in a fresh copy of the workflow."""
    with tempfile.TemporaryDirectory() as directory:
        for file in workflow.iterdir():
            (Path(directory) / file.name).write_bytes(file.read_bytes())
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
        wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def submitted(jobs: JobsClient, **spec: object) -> Run:
    """A job, from `POST /jobs` to the client's seeing it completed."""
    began = time.monotonic()
    job_id = jobs.submit(**spec)
    while (job := jobs.get(job_id))["status"] not in ("completed", "failed"):
        time.sleep(0.02)
    wall = time.monotonic() - began
    assert job["status"] == "completed", job["error"]
    return Run(wall)


def one_rule(report: Report, jobs: JobsClient, roots: Path, trials: int) -> None:
    with one_rule_workflow(roots) as directory:
        submitted(jobs, workflow={"path": directory})
        ours, theirs = [], []
        for _ in range(trials):
            ours.append(submitted(jobs, workflow={"path": directory}).wall)
            theirs.append(bare(Path(directory), 1).wall)
    ratio = median([our / their for our, their in zip(ours, theirs, strict=True)])
    report.add(Row("one rule, POST to completed", ratio, 0.35, ours=seconds(ours), theirs=seconds(theirs)))


def first_rule(report: Report, stack: LocalStack, jobs: JobsClient, roots: Path, trials: int) -> None:
    with one_rule_workflow(roots) as directory:
        ours = [until_first_rule(jobs, directory, "default") for _ in range(trials * 2)]
        with process_worker(stack):
            theirs = [until_first_rule(jobs, directory, PROCESS_GROUP) for _ in range(trials)]
    report.add(
        Row("first rule runs, p50", median(ours), 0.7, unit="s", ours=seconds(ours)),
        Row(
            "first rule runs, against Prefect's process worker",
            median(ours) / median(theirs),
            0.1,
            ours=seconds(ours),
            theirs=seconds(theirs),
        ),
    )


def until_first_rule(jobs: JobsClient, directory: str, group: str) -> float:
    """From `POST /jobs` to the first command of the first rule, by the machine's clock."""
    began = time.time()
    job_id = jobs.submit(workflow={"path": directory}, group=group)
    jobs.wait(job_id, "completed")
    return float(jobs.http.get(f"/jobs/{job_id}/outputs/began.txt").text) - began


@contextmanager
def process_worker(stack: LocalStack) -> Iterator[None]:
    """Prefect's own process worker at its defaults, which runs the same flow."""
    pool = f"{WORK_POOL}-process"
    prefect = [sys.executable, "-m", "prefect"]
    environment = stack.environment
    for command in (
        ["work-pool", "create", pool, "--type", "process", "--overwrite"],
        ["deploy", "flows/job.py:snakemake_job", "--name", PROCESS_GROUP, "--pool", pool],
    ):
        subprocess.run([*prefect, *command], env=environment, cwd=PROJECT, check=True, capture_output=True)
    with tempfile.TemporaryFile() as log:
        worker = subprocess.Popen(
            [*prefect, "worker", "start", "--pool", pool],
            env=environment,
            cwd=PROJECT,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(lambda: _is_online(stack, pool), "the process worker is online")
            yield
        finally:
            worker.terminate()
            worker.wait(60)


def _is_online(stack: LocalStack, pool: str) -> bool:
    url = f"{stack.settings.prefect_url}/api/work_pools/{pool}/workers/filter"
    return bool(httpx.post(url, json={}).json())


def many_rules(report: Report, jobs: JobsClient, counts: dict[int, float], limit: float) -> None:
    """`touch` jobs on two cores; `counts` gives the target for each size."""
    touch = WORKFLOWS / "touch"
    cpu_per_job: dict[int, float] = {}
    for count, target in counts.items():
        ours, cpu_per_job[count] = _with_cpu_per_job(jobs, count)
        try:
            theirs = _bare_within(touch, count, limit)
            report.add(
                Row(
                    f"{count:,} rule jobs",
                    ours / theirs,
                    target,
                    ours=f"{ours:.1f} s",
                    theirs=f"{theirs:.1f} s",
                )
            )
        except subprocess.TimeoutExpired:
            row = Row(
                f"{count:,} rule jobs",
                ours / limit,
                target,
                ours=f"{ours:.1f} s",
                theirs=f"more than {limit:g} s",
            )
            report.add(row)
    small, large = min(cpu_per_job), max(cpu_per_job)
    if small != large:
        ratio = cpu_per_job[large] / cpu_per_job[small]
        report.add(
            Row(
                f"CPU per rule job, {large:,} against {small:,}",
                ratio,
                1.3,
                ours=f"{cpu_per_job[large] * 1000:.1f} ms",
                theirs=f"{cpu_per_job[small] * 1000:.1f} ms",
            )
        )


def _with_cpu_per_job(jobs: JobsClient, count: int) -> tuple[float, float]:
    """Wall seconds, and CPU seconds per rule job of the whole machine."""
    before = _machine_cpu()
    run = submitted(jobs, workflow={"path": str(WORKFLOWS / "touch")}, config={"count": count}, cores=2)
    return run.wall, (_machine_cpu() - before) / count


def _machine_cpu() -> float:
    """Busy CPU seconds of all cores (proc_stat(5)); nothing else should run beside a benchmark."""
    user, nice, system, *_ = (
        int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system) / 100


def _bare_within(workflow: Path, count: int, limit: float) -> float:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "Snakefile").write_bytes((workflow / "Snakefile").read_bytes())
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", f"count={count}"]
        began = time.monotonic()
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=limit)
        return time.monotonic() - began
