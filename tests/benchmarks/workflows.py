"""How long workflows take: submitted to this service, and run by a bare `snakemake`."""

import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from deployments.local import PROJECT, WORK_POOL, LocalStack
from tests.benchmarks.processes import cpu_of, flow_zygote, machine_cpu, prefect_url_with_password
from tests.benchmarks.rows import Report, Row, median, seconds
from tests.support import WORKFLOWS, JobsClient, wait_until

ONE_RULE = 'rule one:\n    output: "began.txt"\n    shell: "date +%s.%N > {output}"\n'
PROCESS_GROUP = "benchmark-process"
_OUR_SCHEDULING = (
    "import os, sys; from flows.snakemake_process import driver; "
    "driver.drive(['--scheduler=greedy', *sys.argv[1:]], {}, open(os.devnull, 'wb'))"
)


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
    """A job, from `POST /jobs` to the client's seeing it completed, with the CPU of the whole machine."""
    used, began = machine_cpu(), time.monotonic()
    job_id = jobs.submit(**spec)
    while (job := jobs.get(job_id))["status"] not in ("completed", "failed"):
        time.sleep(0.02)
    wall = time.monotonic() - began
    assert job["status"] == "completed", job["error"]
    return Run(wall, machine_cpu() - used)


def one_rule(report: Report, jobs: JobsClient, roots: Path, trials: int) -> None:
    with one_rule_workflow(roots) as directory:
        submitted(jobs, workflow={"path": directory})
        ours, theirs = [], []
        for _ in range(trials):
            ours.append(submitted(jobs, workflow={"path": directory}))
            theirs.append(bare(Path(directory), 1))
    ratio = median([our.wall / their.wall for our, their in zip(ours, theirs, strict=True)])
    report.add(
        Row(
            "one rule, POST to completed",
            ratio,
            0.35,
            ours=seconds([run.wall for run in ours]),
            theirs=seconds([run.wall for run in theirs]),
            cpu=f"{median([run.cpu for run in ours]):.2f} : {median([run.cpu for run in theirs]):.2f} s",
        )
    )


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


def small_jobs(report: Report, stack: LocalStack, jobs: JobsClient, count: int = 60) -> None:
    """Mocks of one rule job that come together: what it costs to make, start and end a job."""
    server = psutil.Process(stack.server.pid)
    spec = {"engine": "mock", "mock": {"delay_seconds": [0, 0], "success_rate": 1, "rules": 1}}
    machine, served = machine_cpu(), cpu_of(server)
    with ThreadPoolExecutor(4) as clients:
        ids = list(clients.map(lambda _: jobs.submit(**spec), range(count)))
    for job_id in ids:
        jobs.wait(job_id, "completed", seconds=120)
    used, server_used = ((each / count) * 1000 for each in (machine_cpu() - machine, cpu_of(server) - served))
    report.add(
        Row("a mock job of one rule job, CPU of Prefect's server", server_used, 200, unit="ms"),
        Row("the same, CPU of the whole machine", used, 400, unit="ms"),
    )


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
    url = f"{prefect_url_with_password(stack)}/api/work_pools/{pool}/workers/filter"
    return bool(httpx.post(url, json={}).json())


def many_rules(
    report: Report, stack: LocalStack, jobs: JobsClient, counts: dict[int, float], limit: float
) -> None:
    """`touch` jobs on two cores; `counts` gives the target for each size."""
    costs = {}
    for count, target in counts.items():
        cost = costs[count] = _cost_of(stack, jobs, count)
        theirs = _bare_within("import snakemake.cli as cli; cli.main()", count, limit)
        scheduled = _bare_within(_OUR_SCHEDULING, count, limit)
        compared = f"{theirs.wall:.1f} s" if theirs.wall < limit else f"stopped after {limit:g} s"
        report.add(
            Row(
                f"{count:,} rule jobs",
                cost.wall / theirs.wall,
                target,
                ours=f"{cost.wall:.1f} s",
                theirs=f"{compared}; with our scheduling {scheduled.wall:.1f} s",
                cpu=f"{cost.machine_ms * count / 1000:.1f} : {theirs.cpu:.1f} s",
            )
        )
    small, large = costs[min(costs)], costs[max(costs)]
    report.add(
        Row(
            f"CPU per rule job, {max(costs):,} against {min(costs):,}",
            large.machine_ms / small.machine_ms,
            1.3,
            ours=f"{large.machine_ms:.1f} ms",
            theirs=f"{small.machine_ms:.1f} ms",
        ),
        Row("CPU of the flow process per rule job", large.flow_ms, 2, unit="ms"),
        Row("CPU of Prefect's server per rule job", large.server_ms, 8, unit="ms"),
    )


@dataclass(frozen=True)
class Cost:
    """Of a job of many rule jobs: seconds in all, and milliseconds of CPU per rule job."""

    wall: float
    machine_ms: float
    flow_ms: float
    """Of the process that mirrors the rule jobs, without Snakemake's."""
    server_ms: float


def _cost_of(stack: LocalStack, jobs: JobsClient, count: int) -> Cost:
    server = psutil.Process(stack.server.pid)
    machine, served, began = machine_cpu(), cpu_of(server), time.monotonic()
    job_id = jobs.submit(
        workflow={"path": str(WORKFLOWS / "touch")}, config={"count": count}, cores=2, name=str(count)
    )
    zygote = flow_zygote(stack)
    mirrored = 0.0
    while (job := jobs.get(job_id))["status"] not in ("completed", "failed"):
        for flow_process in zygote.children():
            with contextlib.suppress(psutil.Error):
                mirrored = max(mirrored, cpu_of(flow_process))
        time.sleep(0.1)
    wall = time.monotonic() - began
    assert job["status"] == "completed", job["error"]
    seconds = (machine_cpu() - machine, mirrored, cpu_of(server) - served)
    return Cost(wall, *(each / count * 1000 for each in seconds))


def _bare_within(program: str, count: int, limit: float) -> Run:
    """What `snakemake` takes, started by a line of Python; `limit` seconds if it is not done by then."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "Snakefile").write_bytes((WORKFLOWS / "touch" / "Snakefile").read_bytes())
        command = [sys.executable, "-c", program, "--cores", "2", "--config", f"count={count}"]
        used, began = machine_cpu(), time.monotonic()
        try:
            subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return Run(limit, machine_cpu() - used)
        return Run(time.monotonic() - began, machine_cpu() - used)
