"""Makes the software that rules declare one at a time, and reports that it is being made.

Two Snakemakes that make the same conda environment destroy each other's (snakemake#1685: each takes
the other's for an incomplete one), and real conda's package cache can't take two at once either. So
whatever is made below one prefix is made under a lock. The kernel releases it when the process ends.
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
    """Replace, in this process, what makes conda environments and pulls container images. Call it once."""
    conda: Any = snakemake.deployment.conda
    create = conda.Env.create

    def create_alone(env: Any, *args: Any, **kwargs: Any) -> Any:
        address = Path(env.address)
        flag = conda.get_env_setup_done_flag_file(address)
        if address.exists() and flag.exists():
            flag.touch()  # its time is that of the last use: unused environments are removed by it
            return create(env, *args, **kwargs)
        if kwargs.get("dryrun") or any(args) or env.is_containerized or env.is_externally_managed:
            return create(env, *args, **kwargs)
        with _alone(address.parent, f"the conda environment {env.file.simplify_path()}"):
            if not address.exists():
                flag.unlink(missing_ok=True)  # `--conda-cleanup-envs` leaves it behind
            return create(env, *args, **kwargs)

    conda.Env.create = create_alone
    image: Any = snakemake.deployment.singularity.Image
    pull = image.pull

    def pull_alone(of: Any, *args: Any, **kwargs: Any) -> Any:
        is_dry = kwargs.get("dryrun") or any(args)
        if is_dry or of.is_local or Path(of.path).exists():
            return pull(of, *args, **kwargs)
        with _alone(Path(of.path).parent, f"the container image {of.url}"):
            return pull(of, *args, **kwargs)

    image.pull = pull_alone


def undeployed(rule: Any, methods: frozenset[str]) -> tuple[str, ...]:
    """What a rule declares and this execution does not deploy, as `--software-deployment-method` has it."""
    declared = {
        "conda": getattr(rule, "conda_env", None) or getattr(rule, "_conda_env", None),
        "apptainer": getattr(rule, "container_img", None) or getattr(rule, "_container_img", None),
        "env-modules": getattr(rule, "env_modules", None) or getattr(rule, "_env_modules", None),
    }
    return tuple(name for name, value in declared.items() if value and name not in methods)


@contextmanager
def _alone(prefix: Path, what: str) -> Iterator[None]:
    """Nobody else makes anything below `prefix` meanwhile; the job's log says what takes so long."""
    prefix.mkdir(parents=True, exist_ok=True)
    emitter.emit(PhaseChanged(time=time.time(), phase=PHASE))
    try:
        with (prefix / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say(f"Waiting for another job that makes software here; then comes {what}.")
                with _heartbeat(f"Waiting to make {what}"):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            begun = time.monotonic()
            _say(f"Making {what}.")
            with _heartbeat(f"Making {what}"):
                yield
            _say(f"Made {what} in {time.monotonic() - begun:.1f} s.")
    finally:
        emitter.emit(PhaseChanged(time=time.time(), phase=""))


@contextmanager
def _heartbeat(doing: str) -> Iterator[None]:
    """Say every now and then that it goes on."""
    is_done = threading.Event()
    begun = time.monotonic()

    def beat() -> None:
        while not is_done.wait(HEARTBEAT_SECONDS):
            _say(f"{doing}: {time.monotonic() - begun:.0f} s so far.")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def _say(text: str) -> None:
    emitter.emit(Message(time=time.time(), level="INFO", text=text))
