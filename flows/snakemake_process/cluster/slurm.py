"""SLURM: what its commands say about the jobs of a run, and a fault of its executor plugin."""

import re
import subprocess
import time
from functools import cache
from typing import Any

from flows.snakemake_process.cluster.clusters import Cluster
from flows.snakemake_process.decisions import ClusterDecisions

_COMMAND_SECONDS = 20.0
_AGAIN_SECONDS = 0.3
_ACCOUNT = "JobID,State,ExitCode,Elapsed,Timelimit,ReqMem,MaxRSS,NodeList"
_NO_ACCOUNTING = "accounting_storage/none"
_UNITS = " KMGT"
_FIELD = re.compile(r"(\w+)=(\S+)")
_KILLED_BY_OTHERS = ("CANCELLED", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE")


class Slurm(Cluster):
    """SLURM, by the commands of its client."""

    def repair(self, decisions: ClusterDecisions) -> None:
        """Mend two faults of version 2.8.0, over which a workflow would wait for ever.

        It compares whole words, and `sacct` says `CANCELLED by 1000`: it takes such a job for a running one.
        And it asks `sacct` where that is installed, even if the cluster has no accounting.
        """
        import snakemake_executor_plugin_slurm as plugin  # noqa: PLC0415 - only where it is installed

        plain = plugin.query_job_status

        async def query_job_status(command: str, logger: Any) -> Any:
            states, seconds = await plain(command, logger)
            if states:
                states = {job: state.split()[0] if state else state for job, state in states.items()}
            return states, seconds

        def is_query_tool_available(tool: str) -> bool:
            return bool(has_tool(tool)) and (tool != "sacct" or _has_accounting())

        has_tool = plugin.is_query_tool_available
        plugin.query_job_status = query_job_status
        plugin.is_query_tool_available = is_query_tool_available

    def why_ended(self, external_id: str) -> str:
        rows = _account_of(external_id)
        if not rows:
            return _explanation_without_account(external_id)
        job = rows[0]
        peak = max((row.get("MaxRSS") or "" for row in rows), key=_bytes, default="")
        return _explanation(job, peak)

    def queue(self, run: Any) -> dict[str, str] | None:
        output = _output_of("squeue", "-h", "-r", "-o", "%i|%T|%r", "--name", str(run))
        if output is None:
            return None
        rows = (line.split("|") for line in output.splitlines() if line.count("|") >= 2)
        return {row[0]: row[2] if row[1] == "PENDING" else "" for row in rows}

    def wait_until_gone(self, run: Any, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            held = self.queue(run)
            if held is not None and not held:
                return
            if held:
                _output_of("scancel", *held)
            time.sleep(_AGAIN_SECONDS)


@cache
def _has_accounting() -> bool:
    """Whether the cluster keeps accounts; so it seems if it does not answer."""
    output = _output_of("scontrol", "show", "config")
    return output is None or _NO_ACCOUNTING not in output


def _account_of(external_id: str) -> list[dict[str, str]]:
    """The job and its steps, as `sacct` knows them; empty without accounting."""
    output = _output_of("sacct", "-j", external_id, "-n", "-P", "-o", _ACCOUNT)
    names = _ACCOUNT.split(",")
    return [dict(zip(names, line.split("|"), strict=False)) for line in (output or "").splitlines()]


def _explanation(job: dict[str, str], peak: str) -> str:
    state, node = job["State"].split()[0], job["NodeList"]
    asked, used = _bytes(job["ReqMem"]), _bytes(peak)
    was_killed = job["ExitCode"].endswith(":9")
    if state == "OUT_OF_MEMORY" or (state == "FAILED" and was_killed and used > asked > 0):
        took = f"It took {_megabytes(used)} MB on {node} and" if used > asked else f"On {node} it"
        return f"SLURM ended it for its memory. {took} had asked for {_megabytes(asked)} MB: raise `mem_mb`."
    if state == "TIMEOUT":
        limit = job["Timelimit"]
        return f"SLURM ended it after {job['Elapsed']}, its time limit ({limit}): raise `runtime`."
    if state in _KILLED_BY_OTHERS:
        return f"SLURM ended it: {job['State']} on {node}."
    return ""


def _explanation_without_account(external_id: str) -> str:
    output = _output_of("scontrol", "show", "job", "-o", external_id)
    job = dict(_FIELD.findall(output or ""))
    match job.get("JobState"):
        case "OUT_OF_MEMORY":
            return "SLURM ended it for its memory: raise `mem_mb`."
        case "TIMEOUT":
            return f"SLURM ended it at its time limit ({job.get('TimeLimit')}): raise `runtime`."
        case state if state in _KILLED_BY_OTHERS:
            return f"SLURM ended it: {state} on {job.get('NodeList')}."
        case _:
            return ""


def _bytes(text: str) -> float:
    match = re.match(r"([\d.]+)([KMGT]?)", text)
    return float(match[1]) * 1024 ** _UNITS.index(match[2] or " ") if match else 0.0


def _megabytes(size: float) -> int:
    return round(size / 1024**2)


def _output_of(*command: str) -> str | None:
    """What a command prints; None if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
