"""Starts and stops the processes of the local stack."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.snakemake_process.prctl import die_with_parent

_SHOWN_LINES = 15


class StackError(Exception):
    """The local stack can't start. The message says what to do."""


@dataclass
class StackProcess:
    """A process of the stack, with its own log file."""

    name: str
    log: Path
    _process: "subprocess.Popen[bytes]"

    @classmethod
    def start(
        cls, name: str, command: Sequence[str], environment: Mapping[str, str], logs: Path
    ) -> "StackProcess":
        logs.mkdir(parents=True, exist_ok=True)
        log = logs / f"{name}.log"
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Only the stack itself receives Ctrl-C, and then stops its processes in order.
                start_new_session=True,
                preexec_fn=_prepare,
            )
        return cls(name, log, process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def check(self) -> None:
        """Raises `StackError` with the end of the log if the process has ended."""
        exit_code = self._process.poll()
        if exit_code is not None:
            lines = self.log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
            raise StackError(
                f"{self.name} has ended with exit code {exit_code}. Its log ({self.log}) ends with:\n"
                + "\n".join(lines)
            )

    def wait(self) -> None:
        """Wait until it ends by itself."""
        self._process.wait()

    def stop(self, seconds: float) -> None:
        """Ask the process to end. Kill it if it takes longer than `seconds`."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()


def run_to_end(name: str, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> None:
    """Run a command. Raises `StackError` with its output if it fails."""
    result = subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise StackError(f"{name} failed:\n{result.stdout}{result.stderr}")


def _prepare() -> None:
    """Make the process end with the stack, even if that is killed, and make it interruptible."""
    # A shell that starts the stack in the background leaves SIGINT ignored, but Prefect's worker turns
    # SIGTERM into SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(signal.SIGTERM)
