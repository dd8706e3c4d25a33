"""What `flows.snakemake_process` overrides and calls of CPython that is not documented."""

import atexit
import subprocess
import threading
from collections.abc import Callable

import pytest

from flows.snakemake_process.usage import MeasuredPopen, Usage
from tests.contracts.overriding import accepts_as


def test_the_method_that_collects_an_ended_process_is_there() -> None:
    assert accepts_as(MeasuredPopen._try_wait, subprocess.Popen._try_wait)  # type: ignore[attr-defined]  # private


@pytest.mark.parametrize("wait", [MeasuredPopen.wait, MeasuredPopen.communicate])
def test_it_collects_every_process_that_is_waited_for(wait: Callable[[MeasuredPopen], object]) -> None:
    usage = Usage()
    wait(MeasuredPopen(usage, ["true"]))
    assert usage.cpu_seconds is not None


def test_a_plain_process_still_does_not_say_what_it_took() -> None:
    """When this fails, `MeasuredPopen` may have become superfluous."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert not [name for name in vars(process) if "usage" in name]


@pytest.mark.parametrize(
    ("module", "name"), [(atexit, "_clear"), (atexit, "_run_exitfuncs"), (threading, "_shutdown")]
)
def test_what_ends_a_process_is_there(module: object, name: str) -> None:
    assert callable(getattr(module, name))
