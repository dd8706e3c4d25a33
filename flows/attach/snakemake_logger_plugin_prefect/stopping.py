"""Asks this Snakemake to stop, as Ctrl-C does."""

import signal
import threading

import psutil


def stop_snakemake() -> None:
    """Interrupt Snakemake, which cancels its rule jobs on a cluster, and end those that run here.

    In a terminal, Ctrl-C reaches Snakemake and everything that it has started. Only the main thread
    gets the signal, because it wakes it from waiting. What Snakemake has started is asked one by one: its
    process group may have others in it, such as the script that called it.
    """
    started = psutil.Process().children(recursive=True)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    for process in started:
        try:
            process.terminate()
        except psutil.Error:
            continue  # it has ended by itself
