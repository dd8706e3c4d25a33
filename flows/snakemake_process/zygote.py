"""A process of a workflow environment that has imported Snakemake and forks a supervisor for each job.

    worker ──socket──> zygote ──fork──> supervisor ──fork──> driver (Snakemake)

Imports are most of Snakemake's cost for a small workflow; a forked process inherits them. The worker
sends one message for each job, with the supervisor's end of the job's socket. The zygote ends when
the worker closes its end. Supervisors continue, because they only depend on their flow process.

    python -m flows.snakemake_process.zygote FD
"""

import gc
import os
import select
import signal
import socket
import sys
from typing import NoReturn

from flows.snakemake_process.driver import preload, preload_rest
from flows.snakemake_process.prctl import die_with_parent
from flows.snakemake_process.supervisor import supervise

READY = b"ready"
FORK = b"fork"
"""Carries a file descriptor: the socket of the new supervisor."""

IDLE_SECONDS = 1.0


def main(control: socket.socket) -> NoReturn:
    """Serve the worker at the other end of `control` (SOCK_SEQPACKET)."""
    die_with_parent(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker decides when the zygote ends
        signal.signal(number, signal.SIG_IGN)
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the zygote does not wait for supervisors
    control.sendall(READY)
    is_complete = False
    while True:
        # The job that waits for this process comes first; the other imports are for later jobs.
        if not is_complete and not select.select([control], [], [], IDLE_SECONDS)[0]:
            _complete()
            is_complete = True
        message, descriptors, _, _ = socket.recv_fds(control, len(FORK), 1)
        if not message:
            os._exit(0)
        for descriptor in descriptors:
            if os.fork() == 0:
                _become_supervisor(control, descriptor)
            os.close(descriptor)


def _complete() -> None:
    preload_rest()
    # A garbage collection in a child would touch, and so copy, all imported objects.
    gc.collect()
    gc.freeze()


def _become_supervisor(control: socket.socket, descriptor: int) -> NoReturn:
    os.setsid()
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    supervise(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
