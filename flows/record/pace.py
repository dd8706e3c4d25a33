"""How often a job reports to Prefect: the longer it has run, the less often.

Each request takes about 10 ms of the server's CPU time, as much as two rule jobs of a large batch. So what
many jobs of slow rules cost is their requests. Who watches a job of hours does not need each state within
a quarter of a second.

All functions take and return seconds; `age` is how long the job has run.
"""

LONGEST = 10.0
"""The longest pause between two looks."""

_TICK = 0.25
_LONGEST_TICK = 3.0
_SHOWN_AS_RUNNING = 1.0
_BUSY = 5
_BAR = 3.0
_LONGEST_BAR = 60.0


def tick(age: float) -> float:
    """Between two looks at what there is to send: a sixtieth of the age, from 15 seconds to 3 minutes."""
    return min(max(_TICK, age / 60), _LONGEST_TICK)


def pause(age: float, took: float) -> float:
    """After a look whose requests took so long: a server that answers slowly is asked less often.

    So a job spends a sixth of its time in requests at most, and hundreds of them do not queue up.
    """
    return min(max(tick(age), _BUSY * took), LONGEST)


def shown_as_running(age: float) -> float:
    """A rule job that ends sooner is only reported at its end: reporting `Running` would double its cost.

    Where ticks are as long, one request has what has ended and what has begun since the last.
    """
    return _SHOWN_AS_RUNNING if tick(age) < _SHOWN_AS_RUNNING else 0.0


def bar(age: float) -> float:
    """Between two changes of the bar in the Prefect UI: a tenth of the age, from 30 seconds to 10 minutes."""
    return min(max(_BAR, age / 10), _LONGEST_BAR)
