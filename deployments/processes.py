"""Starts and stops the processes of the local stack."""

import contextlib
import functools
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.snakemake_process.prctl import die_with_parent

_SHOWN_LINES = 15
_VISIBLE = ("PATH", "LANG", "LC_ALL", "TZ")


class StackError(Exception):
    """The local stack can't start. The message says what to do."""


@dataclass
class StackProcess:
    """A process of the stack, with its own log file."""

    name: str
    log: Path
    _process: "subprocess.Popen[bytes]"
    _stop_signal: signal.Signals = signal.SIGTERM

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        logs: Path,
        *,
        directory: Path | None = None,
        owner: pwd.struct_passwd | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> "StackProcess":
        """Start it in `directory` as `owner`. It gets `stop_signal` when this process ends."""
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                **as_user(owner),
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Only the stack itself receives Ctrl-C, and then stops its processes in order.
                start_new_session=True,
                preexec_fn=functools.partial(_prepare, stop_signal),
            )
        return cls(name, log, process, stop_signal)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def how_it_ended(self) -> str:
        """Such as `was killed by SIGKILL`. Only of a process that has ended."""
        exit_code = self._process.wait()
        if exit_code < 0:
            return f"was killed by {signal.Signals(-exit_code).name}"
        return f"has ended with exit code {exit_code}"

    @property
    def last_words(self) -> str:
        """Where its log is, and the end of it."""
        lines = self.log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
        return f"Its log ({self.log}) ends with:\n" + "\n".join(lines)

    def check(self) -> None:
        """Raises `StackError` with the end of the log if the process has ended."""
        if self.has_ended:
            raise StackError(f"{self.name} {self.how_it_ended}. {self.last_words}")

    def wait(self) -> None:
        """Wait until it ends by itself."""
        self._process.wait()

    def stop(self, seconds: float) -> None:
        """Ask the process to end. Kill it if it takes longer than `seconds`."""
        self._process.send_signal(self._stop_signal)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()


def as_user(owner: pwd.struct_passwd | None) -> Any:
    """The arguments with which `subprocess` starts a program as this user; as the own one for None."""
    if owner is None:
        return {}
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def own_variables() -> dict[str, str]:
    """What a program that is not ours gets of the environment: the service's variables may hold secrets."""
    return {name: value for name, value in os.environ.items() if name in _VISIBLE}


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter with `arguments`."""
    return [sys.executable, *arguments]


def run_to_end(name: str, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
    """Run a command of Python. Raises `StackError` with its output if it fails."""
    result = subprocess.run(
        python(*command),
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise StackError(f"{name} failed:\n{result.stdout}{result.stderr}")


def _prepare(stop_signal: signal.Signals) -> None:
    """Make the process end with the stack, even if that is killed, and make it interruptible."""
    # A shell that starts the stack in the background leaves SIGINT ignored, but Prefect's worker turns
    # SIGTERM into SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(stop_signal)
