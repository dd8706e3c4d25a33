"""What a node tells the head about the attempts that it runs: small files in the job's directory.

Head and node share the directory and nothing else, and number rule jobs differently: a file is named
after the rule and its wildcards. A file appears complete (rename). Times are those of the node's clock.
"""

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

DIRECTORY_VARIABLE = "PREFECT_SNAKEMAKE_RECORDS"
"""Set on nodes: the directory of the records."""

_STARTED, _ENDED = "started", "ended"
_LONGEST_RULE_IN_NAME = 60
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")
_IDENTITIES = ("SLURM_JOB_ID", "LSB_JOBID", "AWS_BATCH_JOB_ID", "PBS_JOBID", "JOB_ID")
"""Names that clusters give to the id of a job, in the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a node has recorded about an attempt."""

    key: str
    is_end: bool
    content: Mapping[str, Any]


def key_of(job: Any) -> str:
    """The name of an attempt, the same on head and node."""
    wildcards = sorted((name, str(value)) for name, value in job.wildcards_dict.items())
    digest = sha256(json.dumps([job.rule.name, wildcards]).encode()).hexdigest()[:16]
    rule = _NOT_IN_NAME.sub("_", job.rule.name)[:_LONGEST_RULE_IN_NAME]
    return f"{rule}.{digest}.{job.attempt}"


class Records:
    """The records of one execution, and the logs of its attempts.

    Records have a directory of their own, from which the head takes them: so to list it stays cheap.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._records = directory / "records"

    def log_of(self, job: Any) -> Path:
        return self.directory / f"{key_of(job)}.log"

    def clear(self) -> None:
        """Remove the records of an earlier execution in this directory."""
        self._records.mkdir(parents=True, exist_ok=True)
        self.take()

    def forget(self, job: Any) -> None:
        for kind in (_STARTED, _ENDED):
            (self._records / f"{key_of(job)}.{kind}").unlink(missing_ok=True)

    def take(self) -> list[Record]:
        """Every record that there is, starts before ends. They are removed."""
        try:
            names = os.listdir(self._records)
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            key, _, kind = name.rpartition(".")
            if kind not in (_STARTED, _ENDED):
                continue
            try:
                content = json.loads((self._records / name).read_bytes())
                (self._records / name).unlink()
            except (OSError, ValueError):
                continue  # a network file system lists what it can't read yet
            found.append(Record(key, kind == _ENDED, content))
        return sorted(found, key=lambda record: record.is_end)

    def write_start(self, job: Any, started_at: float) -> None:
        identity = next((os.environ[name] for name in _IDENTITIES if name in os.environ), None)
        content = {"started_at": started_at, "host": socket.gethostname(), "external_id": identity}
        self._write(job, _STARTED, content)

    def write_end(self, job: Any, content: Mapping[str, Any]) -> None:
        self._write(job, _ENDED, content)

    def _write(self, job: Any, kind: str, content: Mapping[str, Any]) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        target = self._records / f"{key_of(job)}.{kind}"
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        with partial.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
