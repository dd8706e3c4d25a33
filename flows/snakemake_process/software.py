"""Creates the software that rules declare under a lock, and reports its progress.

Two Snakemakes that create the same conda environment destroy each other's (snakemake#1685: each one
considers the other's incomplete), and conda's package cache does not support two writers either. So a
lock per prefix protects all creation. The kernel releases it when the process ends.
"""

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import snakemake.deployment.conda
import snakemake.deployment.singularity

from flows.snakemake_process.emitter import emitter
from flows.snakemake_process.events import Message, PhaseChanged

PHASE = "preparing software"
HEARTBEAT_SECONDS = 15.0
_LOCK = ".lock"


def install() -> None:
    """Replace the functions that create conda environments and pull images. Call it once."""
    conda: Any = snakemake.deployment.conda
    create = conda.Env.create

    def create_locked(env: Any, *args: Any, **kwargs: Any) -> Any:
        address = Path(env.address)
        flag = conda.get_env_setup_done_flag_file(address)
        if address.exists() and flag.exists():
            flag.touch()  # its time is the last use, by which unused environments are removed
            return create(env, *args, **kwargs)
        if kwargs.get("dryrun") or any(args) or env.is_containerized or env.is_externally_managed:
            return create(env, *args, **kwargs)
        with _locked(address.parent, f"the conda environment {env.file.simplify_path()}"):
            if not address.exists():
                flag.unlink(missing_ok=True)  # `--conda-cleanup-envs` leaves the flag behind
            return create(env, *args, **kwargs)

    conda.Env.create = create_locked
    image: Any = snakemake.deployment.singularity.Image
    pull = image.pull

    def pull_locked(of: Any, *args: Any, **kwargs: Any) -> Any:
        is_dry = kwargs.get("dryrun") or any(args)
        if is_dry or of.is_local or Path(of.path).exists():
            return pull(of, *args, **kwargs)
        with _locked(Path(of.path).parent, f"the container image {of.url}"):
            return pull(of, *args, **kwargs)

    image.pull = pull_locked


def undeployed(rule: Any, methods: frozenset[str]) -> tuple[str, ...]:
    """Methods (`--software-deployment-method`) that a rule declares and this execution does not deploy."""
    declared = {
        "conda": getattr(rule, "conda_env", None) or getattr(rule, "_conda_env", None),
        "apptainer": getattr(rule, "container_img", None) or getattr(rule, "_container_img", None),
        "env-modules": getattr(rule, "env_modules", None) or getattr(rule, "_env_modules", None),
    }
    return tuple(name for name, value in declared.items() if value and name not in methods)


@contextmanager
def _locked(prefix: Path, what: str) -> Iterator[None]:
    """Hold the lock of `prefix`, and report in the job's log what is being created."""
    prefix.mkdir(parents=True, exist_ok=True)
    emitter.emit(PhaseChanged(time=time.time(), phase=PHASE))
    try:
        with (prefix / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _report(f"Waiting for another job that is creating software; {what} comes next.")
                with _heartbeat(f"Waiting to create {what}"):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            begun = time.monotonic()
            _report(f"Creating {what}.")
            with _heartbeat(f"Creating {what}"):
                yield
            _report(f"Created {what} in {time.monotonic() - begun:.1f} s.")
    finally:
        emitter.emit(PhaseChanged(time=time.time(), phase=""))


@contextmanager
def _heartbeat(doing: str) -> Iterator[None]:
    """Report periodically that it is still running."""
    is_done = threading.Event()
    begun = time.monotonic()

    def beat() -> None:
        while not is_done.wait(HEARTBEAT_SECONDS):
            _report(f"{doing}: {time.monotonic() - begun:.0f} s so far.")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _report(text: str) -> None:
    emitter.emit(Message(time=time.time(), level="INFO", text=text))
