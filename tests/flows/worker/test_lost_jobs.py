"""Which jobs nobody runs any more: the table of `flows.worker.lost_jobs`."""

from datetime import timedelta

import pytest

from flows.worker.lost_jobs import LOST_AFTER, Found, Lost, Sign, Start, is_lost, judge, may_be_lost, sign_of
from flows.worker.settling import claim_of, claimed_by

OURS, OTHER = "worker-1", "worker-2"
JUST_NOW = timedelta(seconds=1)
LONG_AGO = LOST_AFTER + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("is_ours", "sign", "judgement"),
    [
        (True, Sign.HELD, Lost.NOTHING),
        (True, Sign.FREE, Lost.NOTHING),
        (True, Sign.NEVER_TAKEN, Lost.NOTHING),
        (False, Sign.HELD, Lost.WORKER),
        (False, Sign.FREE, Lost.FLOW_PROCESS),
        (False, Sign.NEVER_TAKEN, Lost.BEFORE_ITS_START),
    ],
)
def test_what_a_job_has_lost(is_ours: bool, sign: Sign, judgement: Lost) -> None:
    assert judge(Found(is_ours=is_ours, is_cancelling=False, sign=sign)) is judgement


@pytest.mark.parametrize(("holder", "sign"), [(None, Sign.NEVER_TAKEN), (0, Sign.FREE), (4711, Sign.HELD)])
def test_what_the_lock_says(holder: int | None, sign: Sign) -> None:
    assert sign_of(holder) is sign


@pytest.mark.parametrize("sign", Sign)
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_cancel_is_passed_on_to_whoever_can_still_hear_it(is_ours: bool, sign: Sign) -> None:
    found = Found(is_ours=is_ours, is_cancelling=True, sign=sign)
    assert found.is_to_be_cancelled == (is_ours or sign is Sign.HELD)
    assert not Found(is_ours=is_ours, is_cancelling=False, sign=sign).is_to_be_cancelled


@pytest.mark.parametrize(
    ("start", "lost"),
    [
        (Start(age=LONG_AGO, is_of_before=False, has_run=False, worker=None), True),
        (Start(age=LONG_AGO, is_of_before=False, has_run=False, worker=OURS), True),
        (Start(age=LONG_AGO, is_of_before=False, has_run=False, worker="gone"), True),
        (Start(age=LONG_AGO, is_of_before=False, has_run=False, worker=OTHER), False),
        (Start(age=timedelta(seconds=59), is_of_before=False, has_run=False, worker="gone"), False),
        (Start(age=LONG_AGO, is_of_before=False, has_run=True, worker=OURS), True),
        (Start(age=LONG_AGO, is_of_before=False, has_run=True, worker="gone"), False),
        (Start(age=JUST_NOW, is_of_before=True, has_run=False, worker=OURS), True),
        (Start(age=JUST_NOW, is_of_before=True, has_run=False, worker=OTHER), False),
        (Start(age=JUST_NOW, is_of_before=True, has_run=False, worker=None), False),
        (Start(age=JUST_NOW, is_of_before=False, has_run=False, worker=OURS), False),
    ],
)
def test_a_job_without_a_lock_is_lost_when_nobody_can_still_start_it(start: Start, lost: bool) -> None:
    assert is_lost(start, {OURS, OTHER}, this_worker=OURS) is lost
    if lost:
        assert may_be_lost(start, this_worker=OURS), "it would never be asked"


def test_what_nobody_knows_the_worker_of_is_lost_at_once_where_there_is_no_other() -> None:
    start = Start(age=JUST_NOW, is_of_before=True, has_run=False, worker=None)
    assert is_lost(start, {OURS}, this_worker=OURS)


def test_a_claim_says_whose_it_is() -> None:
    assert claimed_by(claim_of("node (2)")) == "node (2)"
    assert claimed_by("Submitted by somebody.") is None
    assert claimed_by(None) is None
