"""Creates environments, each once, in a directory named by a hash of its requirements.

JOBS_HOME/environments/
  <digest>/                  an environment; `environment.json`, its record, is written last
  <digest>.lock              locked exclusively to create or remove it, shared to use it; its
                             modification time is the last use
  runtime-<digest>/          our code for Snakemake's process
  cache/                     the cache of uv

A lock ends with its process. So an environment that a killed process left incomplete is detected, and
created again.
"""

import fcntl
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from flows.contract.environments import (
    DEFAULT_ENVIRONMENT,
    SUPPORTED_SNAKEMAKE,
    EnvironmentRecord,
    EnvironmentSettings,
    NotDeclared,
    with_snakemake,
)
from flows.contract.job_files import open_file
from flows.contract.spec import EnvironmentSpec, ErrorKind
from flows.environments.environment import Environment
from flows.environments.runtime import runtime_in
from flows.environments.uv import Cancelled, EnvironmentFailure, IsCancelled, Report, Uv

_RECORD = "environment.json"
_DAY_SECONDS = 86_400
_LARGEST_FILE = 1 << 20
_WAIT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requirements of an environment."""

    python: str
    packages: tuple[str, ...]
    may_build: bool
    """Whether packages may be built from source."""
    blame: ErrorKind
    """Who can fix it if they can't be installed."""

    @property
    def digest(self) -> str:
        """Its name: equal for the same requirements, platform and package index."""
        index = sorted(
            item for item in os.environ.items() if item[0].startswith("UV_") and "INDEX" in item[0]
        )
        parts = [self.python, sorted(self.packages), sys.platform, os.uname().machine, index]
        text = json.dumps(parts)
        return sha256(text.encode()).hexdigest()[:16]


class Environments:
    """The environments of one service."""

    def __init__(
        self,
        settings: EnvironmentSettings,
        home: Path,
        report: Report = lambda _: None,
        is_cancelled: IsCancelled = lambda: False,
    ) -> None:
        """`report` receives lines for the job's log; `is_cancelled` is polled during long steps."""
        self._settings = settings
        self.directory = (settings.environments_directory or home / "environments").resolve()
        self._report = report
        self._is_cancelled = is_cancelled

    def wanted(
        self, spec: EnvironmentSpec | None, work: Path | None = None, more: tuple[str, ...] = ()
    ) -> Wanted:
        """The requirements of `spec` and `more`; `work` is the workflow's directory.

        Raises `EnvironmentFailure`.
        """
        if spec is None or spec.name is not None:
            try:
                named = self._settings.named(DEFAULT_ENVIRONMENT if spec is None else spec.name or "")
            except NotDeclared as error:
                raise EnvironmentFailure(
                    str(error), "Use one of those, or ask the operator to declare it in prefect.yaml."
                ) from error
            return Wanted(
                named.python or _own_python(),
                (*with_snakemake(named.packages), *more),
                may_build=True,
                blame=ErrorKind.SYSTEM,
            )
        if not self._settings.job_packages:
            raise EnvironmentFailure(
                "this service allows only named environments",
                f"Use one of: {', '.join(sorted(self._settings.environments))}.",
            )
        packages = spec.packages
        if spec.file is not None:
            if work is None:
                raise EnvironmentFailure(
                    "there is no workflow to read the file from", "Use `environment.packages` instead."
                )
            packages = requirements_in(work, spec.file)
        return Wanted(
            spec.python or _own_python(),
            (*with_snakemake(packages), *more),
            may_build=self._settings.job_package_builds,
            blame=ErrorKind.WORKFLOW,
        )

    def again(self, record: EnvironmentRecord, more: tuple[str, ...] = ()) -> Wanted:
        """The exact packages that an earlier job ran with, and those of `more` that they lack."""
        missing = (each for each in more if not record.has(canonicalize_name(Requirement(each).name)))
        return Wanted(record.python, (*record.packages, *missing), may_build=True, blame=ErrorKind.SYSTEM)

    def get(self, wanted: Wanted, digest: str | None = None) -> Environment:
        """The environment, created if necessary. It is not removed while this process runs.

        `digest` is another name under which it may exist.
        Raises `EnvironmentFailure` and `Cancelled`.
        """
        if digest is not None and (record := self._record(digest)) and record.packages == wanted.packages:
            name = digest
        else:
            name = wanted.digest
        lock = self._open_lock(name)
        while True:
            self._acquire(
                lock, fcntl.LOCK_SH, "Waiting for another job that is creating the same environment"
            )
            if (found := self._record(name)) is not None:
                break
            self._acquire(
                lock, fcntl.LOCK_EX, "Waiting for another job that is creating the same environment"
            )
            if self._record(name) is None:
                self._make(wanted, name)
        os.utime(lock)
        return self._environment(name, found)

    def ready(self, wanted: Wanted) -> Environment | None:
        """The environment if it exists. It is not protected from removal."""
        if (record := self._record(wanted.digest)) is None:
            return None
        return self._environment(wanted.digest, record)

    def remove_unused(self) -> list[str]:
        """Remove those that no job uses or has used for `environments_keep_days`. Returns their names."""
        oldest = time.time() - self._settings.environments_keep_days * _DAY_SECONDS
        removed = []
        for lock_file in sorted(self.directory.glob("*.lock")):
            with self._exclusively(lock_file) as is_unused:
                directory = lock_file.with_suffix("")
                if is_unused and directory.exists() and lock_file.stat().st_mtime < oldest:
                    # The lock file stays: another process may be waiting for it.
                    shutil.rmtree(directory, ignore_errors=True)
                    if not directory.exists():  # that of an image belongs to somebody else
                        removed.append(lock_file.stem)
        return removed

    def _make(self, wanted: Wanted, name: str) -> None:
        directory = self.directory / name
        shutil.rmtree(directory, ignore_errors=True)
        begun = time.monotonic()
        self._report(
            f"Creating the environment {name}: Python {wanted.python}, {', '.join(wanted.packages)}."
        )
        uv = Uv(
            self.directory / "cache",
            self._report,
            self._is_cancelled,
            python_downloads=self._settings.python_downloads,
        )
        build = [] if wanted.may_build else ["--no-build"]
        asked = self.directory / f"{name}.in"
        pinned = self.directory / f"{name}.txt"
        asked.write_text("".join(f"{package}\n" for package in wanted.packages))
        try:
            python = ["--python", str(directory / "bin" / "python")]
            uv.run(
                "venv",
                "--quiet",
                "--python",
                _interpreter(wanted.python),
                str(directory),
                doing="Finding Python",
            )
            uv.run(
                *("pip", "compile", "--quiet", *build, *python, "--no-header", "--no-annotate"),
                *("--no-emit-index-url", "--output-file", str(pinned), str(asked)),
                doing="Resolving the packages",
            )
            packages = tuple(line for line in pinned.read_text().splitlines() if "==" in line)
            record = EnvironmentRecord(digest=name, python=_version_of(directory), packages=packages)
            _check_snakemake(record)
            uv.run(
                *("pip", "install", "--quiet", *build, *python, "--no-deps", "--requirement", str(pinned)),
                doing=f"Installing {len(packages)} packages",
            )
        except EnvironmentFailure as failure:
            shutil.rmtree(directory, ignore_errors=True)
            if wanted.blame is ErrorKind.SYSTEM:
                raise EnvironmentFailure(
                    str(failure), f"Contact the operator. {failure.resolution}", ErrorKind.SYSTEM
                ) from failure
            raise
        finally:
            asked.unlink(missing_ok=True)
            pinned.unlink(missing_ok=True)
        (directory / _RECORD).write_text(record.model_dump_json())
        seconds = time.monotonic() - begun
        self._report(f"Created in {seconds:.1f} s: {len(packages)} packages, Snakemake {record.snakemake}.")

    def _environment(self, name: str, record: EnvironmentRecord) -> Environment:
        return Environment(self.directory / name / "bin" / "python", runtime_in(self.directory), record)

    def _record(self, name: str) -> EnvironmentRecord | None:
        try:
            return EnvironmentRecord.model_validate_json((self.directory / name / _RECORD).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _open_lock(self, name: str) -> int:
        """Open the lock file. Never closed: a process that uses an environment locks it until it ends."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return os.open(self.directory / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)

    def _acquire(self, lock: int, kind: int, waiting: str) -> None:
        has_reported = False
        while True:
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not has_reported:
                    self._report(f"{waiting}.")
                    has_reported = True
                if self._is_cancelled():
                    raise Cancelled from None
                time.sleep(_WAIT_SECONDS)

    @contextmanager
    def _exclusively(self, lock_file: Path) -> Iterator[bool]:
        """Yield whether the lock is free. If so, it is held inside the context."""
        with lock_file.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def requirements_in(work: Path, file: str) -> tuple[str, ...]:
    """The requirements in a file of the workflow: only names and versions. Raises `EnvironmentFailure`."""
    try:
        with open_file(work / file, within=work) as content:
            text = content.read(_LARGEST_FILE).decode("utf-8", "replace")
    except FileNotFoundError:
        raise EnvironmentFailure(
            f"the workflow has no file {file}",
            "Set `environment.file` to a path inside the workflow's directory.",
        ) from None
    packages = []
    for number, line in enumerate(text.splitlines(), start=1):
        requirement = line.split(" #")[0].strip()
        if not requirement or requirement.startswith("#"):
            continue
        with suppress(InvalidRequirement):
            if Requirement(requirement).url is None:
                packages.append(requirement)
                continue
        raise EnvironmentFailure(
            f"line {number} of {file} is not a name with versions: {requirement[:200]}",
            "Remove options, URLs and paths from it: the operator decides where packages come from.",
        )
    return tuple(packages)


def _check_snakemake(record: EnvironmentRecord) -> None:
    if Version(record.snakemake) not in SUPPORTED_SNAKEMAKE:
        raise EnvironmentFailure(
            f"Snakemake {record.snakemake} is not supported",
            f"Request a version {SUPPORTED_SNAKEMAKE} in `environment`, such as snakemake ~= 9.27.",
        )


def _version_of(directory: Path) -> str:
    """The version of Python of a virtual environment."""
    lines = (directory / "pyvenv.cfg").read_text().splitlines()
    values = dict(line.split(" = ", 1) for line in lines if " = " in line)
    return values.get("version_info", values.get("version", ""))


def _own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _interpreter(version: str) -> str:
    """What uv is asked for: the service's own interpreter if it is of that version, wherever it is installed.

    uv looks on PATH, where the service's interpreter need not be.
    """
    own = Path(sys.base_prefix) / "bin" / f"python{_own_python()}"
    return str(own) if version in (_own_python(), platform.python_version()) and own.exists() else version
