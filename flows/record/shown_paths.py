"""Shows paths as the submitter knows them: relative to the workflow's directory, not on this server."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    ErrorRaised,
    Message,
    RuleJobPlanned,
    WorkflowEvent,
)

_SITE_PACKAGES = re.compile(r"(?<=[\"' ])/[^\"' \n]*/lib/python3\.\d+/site-packages/")
"""Where the packages of an environment are: a traceback is as clear without it."""


@dataclass(frozen=True, slots=True)
class ShownPaths:
    """Of one job."""

    directory: Path
    """The job's directory."""
    work: Path
    """Snakemake's working directory, which may be that of another job."""

    def in_text(self, text: str) -> str:
        shown = text.replace(f"{self.work}/", "").replace(str(self.work), ".")
        return _SITE_PACKAGES.sub("", shown.replace(f"{self.directory}/", "../"))

    def in_event(self, event: WorkflowEvent) -> WorkflowEvent:
        """The event with its texts for people. Paths that the service follows stay as they are."""
        match event:
            case ErrorRaised() | Message():
                return replace(event, text=self.in_text(event.text))
            case AttemptFinished():
                return replace(event, message=self.in_text(event.message))
            case AttemptStarted():
                shell = None if event.shell is None else self.in_text(event.shell)
                return replace(event, reason=self.in_text(event.reason), shell=shell)
            case RuleJobPlanned():
                return replace(event, reason=self.in_text(event.reason))
            case _:
                return event
