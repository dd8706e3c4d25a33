"""Every fault of `make prove` once, as far as it needs no disk and no larger server of its own.

`tests/service/test_larger_server.py` has those of a larger server.
"""

from dataclasses import replace

import pytest

from deployments.local import LocalStack
from tests.prove.faults import FAULTS, Fault
from tests.prove.trials import run

_JOBS = 6
_OWN_SECONDS = 30.0
_LATEST_MOMENT_SECONDS = 3.0
_LONGEST_SECONDS = 6.0


@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTS if not (fault.needs_own_disk or fault.needs_larger_server)],
    ids=lambda fault: fault.name,
)
def test_nothing_is_wrong_after(fault: Fault, stack: LocalStack) -> None:
    short = replace(fault, seconds=min(fault.seconds, _LONGEST_SECONDS))

    trial = run(short, stack, _JOBS, _OWN_SECONDS, _LATEST_MOMENT_SECONDS)

    assert trial.was_inflicted
    assert trial.wrong == {}
