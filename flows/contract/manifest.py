"""The manifest: what a job has published. The flow writes it, the API reads it.

The flow publishes it last and atomically, so every file that it lists exists.
"""

import os
from datetime import datetime
from enum import StrEnum
from typing import Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from flows.contract.environments import EnvironmentRecord
from flows.contract.field_types import PublishedPath

MANIFEST_NAME = "outputs.json"
"""Below the job's key."""


_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class FileKind(StrEnum):
    """What a published file is to the workflow."""

    OUTPUT = "output"
    REPORT = "report"
    """Snakemake's report of the job."""
    LOG = "log"
    """A `log:` file of a rule, what an attempt at a rule job wrote, or Snakemake's own log."""
    BENCHMARK = "benchmark"


class OutputItem(_Frozen):
    """A file that a job has published."""

    path: PublishedPath
    kind: FileKind = FileKind.OUTPUT
    size: NonNegativeInt
    sha256: str | None = None
    """None for a large file of which the operator wants no checksum."""
    modified_at: datetime
    is_encoded: bool | None = None
    """Whether `path` is percent-encoded, because the file's name is not text in UTF-8."""
    file: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")
    """Its name in the job's directory, if it is not the workflow's own `path`."""

    @property
    def place(self) -> tuple[str, ...]:
        """Its location below the job's key."""
        if self.file is not None:
            return (self.file,)
        return ("work", os.fsdecode(unquote_to_bytes(self.path)) if self.is_encoded else self.path)


def listed_path(path: str) -> tuple[str, bool]:
    """How a manifest names the file, and whether that is percent-encoded: JSON holds text only."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return quote_from_bytes(os.fsencode(path), safe=_UNQUOTED), True
    return path, False


class SnakefileItem(_Frozen):
    """The Snakefile that ran, and the version of Snakemake that read it."""

    path: PublishedPath
    text: str
    snakemake: str = "unknown"
    """The version; `unknown` if the job ended before it had an environment."""


class Manifest(_Frozen):
    """Every file that a job has published, and the Snakefile that produced them."""

    version: Literal[1] = 1
    outputs: tuple[OutputItem, ...] = ()
    snakefile: SnakefileItem | None = None
    environment: EnvironmentRecord | None = None
    """What Snakemake ran in."""
