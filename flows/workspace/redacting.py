"""Replaces secrets in the logs of a job before they are published.

Snakemake and its rules write these files themselves, so they contain what was printed. While the job
runs, nothing serves them.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flows.contract.job_files import open_file
from flows.record.redaction import Redaction
from flows.workspace.workspace import Workspace


def redact_logs(workspace: Workspace, rule_logs: Iterable[str], redaction: Redaction) -> None:
    """Make `snakemake.log` from the raw one, and redact the report and the files of `log` directives."""
    if not redaction:
        return
    _redact(workspace.raw_log, workspace.directory, workspace.snakemake_log, redaction)
    workspace.raw_log.unlink(missing_ok=True)
    _redact(workspace.report, workspace.directory, workspace.report, redaction)
    for name in workspace.files_of(rule_logs):
        file = workspace.work / name
        _redact(file, workspace.work, file, redaction)


def _redact(file: Path, within: Path, result: Path, redaction: Redaction) -> None:
    """Write the redacted `file`, if there is one, to `result`, with the time that Snakemake compares."""
    with suppress(FileNotFoundError), open_file(file, within=within) as content:
        with tempfile.NamedTemporaryFile(dir=result.parent, delete=False) as redacted:
            redacted.writelines(redaction.stream(content))
        shutil.copymode(f"/proc/self/fd/{content.fileno()}", redacted.name)
        status = os.fstat(content.fileno())
        os.utime(redacted.name, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(redacted.name, result)
