"""Gives every attempt at a rule job its own log file, and measures the usage of its commands.

In Snakemake, all rule jobs write to its own stdout and stderr. Each rule job runs in its own thread,
so processes and output of the current thread can be redirected to the file of its attempt. Commands that
the Snakefile runs itself are reported as what it prints (`flows.snakemake_process.printing`).
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import snakemake.executors.local
import snakemake.shell

from flows.snakemake_process.printing import output_of_command
from flows.snakemake_process.usage import MeasuredPopen, Usage

_attempt = threading.local()


@contextmanager
def captured(log_path: Path) -> Iterator[Usage]:
    """Inside this context, child processes and prints of this thread write to `log_path`.

    Yields the usage of the child processes, which grows as they end.
    """
    log_path.unlink(missing_ok=True)  # of an earlier execution in this directory
    with log_path.open("a", buffering=1, encoding="utf-8", errors="replace") as log:
        _attempt.log, _attempt.usage = log, Usage()
        try:
            yield _attempt.usage
        finally:
            _attempt.log = None


def install() -> None:
    """Replace the functions with which Snakemake starts rule jobs in this process."""
    if isinstance(sys.stdout, _ThreadStream):
        return
    # `snakemake.shell` as an attribute is the class of that name, not the module.
    capturing = _subprocess_that_captures()
    sys.modules["snakemake.shell"].sp = capturing  # type: ignore[attr-defined]  # foreign module
    snakemake.executors.local.subprocess = capturing
    sys.stdout = _ThreadStream(sys.stdout)
    sys.stderr = _ThreadStream(sys.stderr)


def spawn_with(variables: Callable[[], Mapping[str, str]]) -> None:
    """Set additional environment variables of a Snakemake that runs a `run:` block."""
    snakemake.executors.local.subprocess.check_call = partial(_check_call, variables)


def _subprocess_that_captures() -> SimpleNamespace:
    """The `subprocess` module with our `Popen` and `check_call`, which Snakemake uses."""
    namespace = SimpleNamespace(**vars(subprocess))
    namespace.Popen = _popen
    namespace.check_call = partial(_check_call, dict)
    return namespace


def _popen(*args: Any, **kwargs: Any) -> "subprocess.Popen[Any]":
    log: TextIO | None = getattr(_attempt, "log", None)
    if log is None:
        with output_of_command() as output:
            if kwargs.get("stdout") is not subprocess.PIPE:
                kwargs["stdout"] = output
            kwargs.setdefault("stderr", output)
            return subprocess.Popen(*args, **kwargs)
    if kwargs.get("stdout") is not subprocess.PIPE:
        kwargs["stdout"] = log
    kwargs.setdefault("stderr", log)
    return MeasuredPopen(_attempt.usage, *args, **kwargs)


def _check_call(variables: Callable[[], Mapping[str, str]], *args: Any, **kwargs: Any) -> int:
    with _popen(*args, env={**os.environ, **variables()}, **kwargs) as process:
        exit_code = process.wait()
    if exit_code:
        raise subprocess.CalledProcessError(exit_code, args[0])
    return 0


class _ThreadStream:
    """A text stream that writes to the log of the thread's attempt, or else to the original stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(_attempt, "log", None) or self._stream, name)
