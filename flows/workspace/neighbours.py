"""The outputs of other jobs of a group, which a job may read.

A file beside the working directory says which group a job is of. The service writes it, and rules can't:
they write in `work/` only. A machine without rooms keeps no job from another's files in any case.
"""

import os
from pathlib import Path
from uuid import UUID

from flows.contract.untrusted_tree import Refused

_GROUP = "group"


class NoSuchOutput(Refused):
    """The job has no such output, or is not of the group; `resolution` says what the submitter can do."""


def note_group(directory: Path, group: str) -> None:
    """Write down of which group the job in `directory` is."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _GROUP).write_text(group)


def work_to_read(jobs: Path, job_id: UUID, group: str) -> Path:
    """The working directory of a job of the group, links resolved. Raises `NoSuchOutput`."""
    try:
        is_of_group = (jobs / str(job_id) / _GROUP).read_text() == group
    except OSError:
        is_of_group = False
    work = Path(os.path.realpath(jobs / str(job_id) / "work"))
    if not is_of_group or not work.is_dir():
        raise NoSuchOutput(
            f"there is no job {job_id} of this group whose files are on this machine",
            "Name a job of the same group that has completed and was not removed.",
        )
    return work


def output_to_read(jobs: Path, job_id: UUID, path: str, group: str) -> Path:
    """A file or a directory that the job has made, links resolved. Raises `NoSuchOutput`.

    A link that leads out of the job's directory is refused.
    """
    work = work_to_read(jobs, job_id, group)
    target = Path(os.path.realpath(work / path))
    if not target.is_relative_to(work) or not target.exists():
        raise NoSuchOutput(
            f"the job {job_id} has not made '{path}'", f"GET /jobs/{job_id}/outputs lists what it has made."
        )
    return target
