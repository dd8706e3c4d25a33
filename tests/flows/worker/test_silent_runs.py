"""When an attached run is silent for too long."""

from datetime import UTC, datetime
from uuid import uuid4

from flows.worker.silent_runs import Silence

RUN, OTHER = uuid4(), uuid4()
MONDAY, TUESDAY = (datetime(2026, 11, day, tzinfo=UTC) for day in (23, 24))


def test_a_run_is_silent_when_it_has_not_changed_while_somebody_looked() -> None:
    silence = Silence(seconds=10)
    assert silence.broken_by_nobody({RUN: MONDAY, OTHER: MONDAY}, 0) == []
    assert silence.broken_by_nobody({RUN: MONDAY, OTHER: TUESDAY}, 6) == []
    assert silence.broken_by_nobody({RUN: MONDAY, OTHER: TUESDAY}, 11) == [RUN]


def test_nobody_is_blamed_for_the_time_in_which_nobody_looked() -> None:
    """Prefect was away, for the run and for who watches it."""
    silence = Silence(seconds=10)
    assert silence.broken_by_nobody({RUN: MONDAY}, 0) == []
    assert silence.broken_by_nobody({RUN: MONDAY}, 60) == []
    assert silence.broken_by_nobody({RUN: MONDAY}, 69) == []
    assert silence.broken_by_nobody({RUN: MONDAY}, 71) == [RUN]
