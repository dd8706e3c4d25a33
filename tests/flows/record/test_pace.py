"""A job that has just begun is followed closely, and one of hours seldom."""

import pytest

from flows.record import pace


@pytest.mark.parametrize(
    ("age", "tick", "shown_as_running", "bar"),
    [
        (0, 0.25, 1, 3),
        (15, 0.25, 1, 3),
        (30, 0.5, 1, 3),
        (60, 1, 0, 6),
        (600, 3, 0, 60),
        (86_400, 3, 0, 60),
    ],
)
def test_the_intervals_grow_with_the_age(
    age: float, tick: float, shown_as_running: float, bar: float
) -> None:
    assert pace.tick(age) == tick
    assert pace.shown_as_running(age) == shown_as_running
    assert pace.bar(age) == bar


def test_a_server_that_answers_slowly_is_asked_less_often() -> None:
    assert pace.pause(0, took=0.04) == 0.25
    assert pace.pause(0, took=0.4) == 2
    assert pace.pause(600, took=0.4) == 3
    assert pace.pause(600, took=20) == 10
